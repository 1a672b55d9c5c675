-- What one process at a time does for all of them, now and then.
CREATE TABLE chores (
    name   text PRIMARY KEY,
    -- When somebody may begin: the next time, or when whoever is at it has not been heard of for too long.
    due_at timestamptz NOT NULL
);
INSERT INTO chores (name, due_at) VALUES ('upkeep', now());
