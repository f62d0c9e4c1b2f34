-- The query side's database: what a projection needs beside its tables, which are made from their description in code.

-- Whose facts are projected here. One row, written by the first projector.
CREATE TABLE deployment (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id uuid NOT NULL,
    partitions integer NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    created_at bigint NOT NULL
);

-- What the read models' tables look like. One row, written when they are made.
CREATE TABLE read_models (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    description text NOT NULL
);

-- How far each partition is projected. Moved in one transaction with the rows.
CREATE TABLE checkpoints (
    partition integer PRIMARY KEY,
    sequence bigint NOT NULL,
    record_id uuid
) WITH (fillfactor = 30);

-- Who lives, until when; who tries which partition; and how often that has changed hands in a role.
CREATE TABLE members (
    role text COLLATE "C" NOT NULL,
    member uuid NOT NULL,
    lives_until bigint NOT NULL,
    PRIMARY KEY (role, member)
) WITH (fillfactor = 50);
CREATE TABLE leases (
    role text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    member uuid NOT NULL,
    PRIMARY KEY (role, partition)
) WITH (fillfactor = 50);
CREATE TABLE lease_rounds (
    role text COLLATE "C" PRIMARY KEY,
    round bigint NOT NULL
) WITH (fillfactor = 50);
