-- What each load of a model was predicted to need and measurably took, and how fast this PC is.
CREATE TABLE loads (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    machine TEXT NOT NULL,     -- hardware.detect.fingerprint: a data folder may move to another PC
    model TEXT NOT NULL,
    plan TEXT NOT NULL,        -- MemoryPlan as JSON
    ram INTEGER NOT NULL,      -- bytes the engine's process grew by at its peak
    gpu INTEGER,               -- bytes on GPUs, NULL where nobody tells
    gpu_runtime INTEGER NOT NULL DEFAULT 1, -- 0: told by an allocator that does not see the CUDA context
    read INTEGER NOT NULL DEFAULT 0, -- most tokens read for one answer
    kept INTEGER NOT NULL DEFAULT 0  -- most tokens that the cache held
);
CREATE INDEX loads_by_machine ON loads(machine, at);
CREATE TABLE speeds (
    machine TEXT PRIMARY KEY,
    figures TEXT NOT NULL      -- hardware.speeds.Speeds as JSON
);
