-- The command side's database: the event log, and what moves in one transaction with it.
--
-- Counters are BIGINT and never negative. Times are microseconds since the Unix epoch. JSON is TEXT: it has to come back
-- byte for byte, and jsonb would put its keys in another order.

-- What is fixed when a deployment is created. One row.
CREATE TABLE deployment (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    id uuid NOT NULL,
    partitions integer NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    created_at bigint NOT NULL
);

-- Who may write, where the next record goes, and how far the queue has been worked off. Every commit updates its rows;
-- with room on the page and no index over what changes, such an update touches one page and no index.
CREATE TABLE partitions (
    partition integer PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,
    head bigint NOT NULL DEFAULT 0,
    queue_created_at bigint,
    queue_message bigint,
    queue_first uuid,
    queue_index bigint
) WITH (fillfactor = 30);

CREATE TABLE records (
    partition integer NOT NULL,
    schema integer NOT NULL,
    sequence bigint NOT NULL,
    recorded_at bigint NOT NULL,
    version bigint,
    record_id uuid NOT NULL,
    aggregate_id uuid NOT NULL,
    command_id uuid NOT NULL,
    correlation_id uuid NOT NULL,
    causation_id uuid NOT NULL,
    last_of_command boolean NOT NULL,
    aggregate_type text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    actor text NOT NULL,
    traceparent text,
    data text NOT NULL,
    CONSTRAINT records_pkey PRIMARY KEY (partition, sequence)
);

CREATE UNIQUE INDEX records_of_aggregate ON records (aggregate_type, aggregate_id, version) WHERE version IS NOT NULL;

-- One outcome a command, over all partitions, for ever.
CREATE TABLE inbox (
    command_id uuid NOT NULL,
    partition integer NOT NULL,
    sequence bigint NOT NULL,
    fingerprint bytea NOT NULL,
    verdict text NOT NULL,
    CONSTRAINT inbox_pkey PRIMARY KEY (command_id)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP;
END
$$;

-- For each statement, so that one that would hit no row is refused as well; ALWAYS, so that no session setting turns it off.
CREATE TRIGGER records_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON records
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE records ENABLE ALWAYS TRIGGER records_are_append_only;
CREATE TRIGGER inbox_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON inbox
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE inbox ENABLE ALWAYS TRIGGER inbox_is_append_only;

CREATE TABLE snapshots (
    aggregate_type text COLLATE "C" NOT NULL,
    aggregate_id uuid NOT NULL,
    version bigint NOT NULL,
    schema integer NOT NULL,
    data text NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id)
) WITH (fillfactor = 80);

-- How far the policies have come.
CREATE TABLE checkpoints (
    reader text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (reader, partition)
) WITH (fillfactor = 50);

-- How far other contexts' streams are imported.
CREATE TABLE foreign_positions (
    reader text COLLATE "C" PRIMARY KEY,
    created_at bigint NOT NULL,
    message bigint NOT NULL,
    fingerprint bytea NOT NULL
) WITH (fillfactor = 50);

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
