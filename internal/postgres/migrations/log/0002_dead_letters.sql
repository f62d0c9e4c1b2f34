-- The dead letters among the records: few, and looked for by people.
CREATE INDEX dead_commands ON records (partition, sequence) WHERE version IS NULL AND event_type = 'CommandDead';
