-- Which threads, batch and attention suited a model on this PC when that was measured.
CREATE TABLE tunings (
    machine TEXT NOT NULL,     -- hardware.detect.fingerprint
    model TEXT NOT NULL,       -- the shape and type of its weights (memory.tuning.shape)
    build TEXT NOT NULL,       -- which build of llama.cpp measured it
    figures TEXT NOT NULL,     -- types.Tuned as JSON
    PRIMARY KEY (machine, model, build)
);
