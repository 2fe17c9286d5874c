-- Loads were measured by getrusage, which on Linux counts what the parent held when it started the
-- process. Nothing true can be learnt from them, and nothing depends on them.
DELETE FROM loads;
