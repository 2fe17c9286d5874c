-- Each time memory ran out under a model: when, how, what came back, and what the person chose then.
CREATE TABLE out_of_memory (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    error TEXT NOT NULL,       -- the OutOfMemory error as JSON: model, phase, cause, memory before and after
    cure TEXT                  -- memory.relief.Cure as JSON; NULL while none was chosen
);
