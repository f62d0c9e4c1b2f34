-- The roles of the distributed platform and what each of them may do: no more than its work.
--
--     psql "$OWNER_URL_OF_THE_LOG"         -v ON_ERROR_STOP=1 -v worker_password=.. -v relayer_password=.. -f scripts/roles.sql
--     psql "$OWNER_URL_OF_THE_READ_MODELS" -v ON_ERROR_STOP=1 -v projector_password=.. -v query_password=.. -f scripts/roles.sql
--
-- Run it as the owner of the database (who may create roles) or as a superuser, in each of the two databases, after
-- `financing migrate`. It grants what is in the database it runs in. It may be run again, and has to be after a migration
-- that makes tables.
--
-- Variables:
--     worker_password, relayer_password, projector_password, query_password
--         A role's password, in plain or as a SCRAM verifier (which never shows the password to the server's log). A role
--         whose password is not given keeps the one it has; a new one cannot log in with a password until it has one.
--     prefix
--         What the roles' names begin with; `financing` unless given. For several platforms on one server.
--
-- | role                | runs                         | the log's database                      | the read models' database |
-- |---------------------|------------------------------|-----------------------------------------|---------------------------|
-- | financing_worker    | commandsd: worker, policies  | appends; moves partitions, checkpoints  | no access                 |
-- | financing_relayer   | relayerd                     | reads records                           | no access                 |
-- | financing_projector | queryprojectord              | no access                               | writes rows, checkpoints  |
-- | financing_query     | queriesd                     | no access                               | reads                     |
--
-- `financing export` reads as financing_worker. `financing import` writes as the owner, before these roles are granted anything or after.

\set ON_ERROR_STOP on

\if :{?prefix}
\else
    \set prefix financing
\endif
\if :{?worker_password}
\else
    \set worker_password ''
\endif
\if :{?relayer_password}
\else
    \set relayer_password ''
\endif
\if :{?projector_password}
\else
    \set projector_password ''
\endif
\if :{?query_password}
\else
    \set query_password ''
\endif

BEGIN;

-- What psql knows does not reach into a DO block, but a setting of this transaction does.
SELECT set_config('roles.prefix', :'prefix', true),
       set_config('roles.worker', :'worker_password', true),
       set_config('roles.relayer', :'relayer_password', true),
       set_config('roles.projector', :'projector_password', true),
       set_config('roles.query', :'query_password', true) \g /dev/null

-- The roles. They belong to the server and not to a database: whoever makes the same ones at the same moment, for another
-- database, is waited for by trying again.
DO $$
DECLARE
    part text;
    role text;
    password text;
    attempts integer := 0;
BEGIN
    FOREACH part IN ARRAY ARRAY['worker', 'relayer', 'projector', 'query'] LOOP
        role := current_setting('roles.prefix') || '_' || part;
        password := current_setting('roles.' || part);
        LOOP
            BEGIN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
                    EXECUTE format('CREATE ROLE %I LOGIN', role);
                END IF;
                IF password <> '' THEN
                    EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L', role, password);
                END IF;
                EXIT;
            EXCEPTION WHEN duplicate_object OR unique_violation OR internal_error THEN
                attempts := attempts + 1;
                IF attempts > 20 THEN
                    RAISE;
                END IF;
                PERFORM pg_sleep(0.05);
            END;
        END LOOP;
    END LOOP;
END
$$;

-- Nobody gets in, and nobody makes anything, who is not named here.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', current_schema());
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM PUBLIC', current_schema());
END
$$;

-- The log's database.
DO $$
DECLARE
    worker text := current_setting('roles.prefix') || '_worker';
    relayer text := current_setting('roles.prefix') || '_relayer';
    role text;
BEGIN
    IF to_regclass('records') IS NULL THEN
        RETURN;
    END IF;
    FOREACH role IN ARRAY ARRAY[worker, relayer] LOOP
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
        EXECUTE format('GRANT SELECT ON migrations, deployment, partitions, records TO %I', role);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON members, leases TO %I', role);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON lease_rounds TO %I', role);
    END LOOP;
    EXECUTE format('GRANT UPDATE ON partitions TO %I', worker);
    EXECUTE format('GRANT INSERT ON records TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT ON inbox TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON snapshots, checkpoints TO %I', worker);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON foreign_positions TO %I', worker);
END
$$;

-- The read models' database. Its tables are as many as the read models are, so what is not for the projector is taken away.
DO $$
DECLARE
    projector text := current_setting('roles.prefix') || '_projector';
    query text := current_setting('roles.prefix') || '_query';
    owner text;
    role text;
BEGIN
    IF to_regclass('read_models') IS NULL THEN
        RETURN;
    END IF;
    SELECT pg_get_userbyid(relowner) INTO owner FROM pg_class WHERE oid = to_regclass('read_models');
    FOREACH role IN ARRAY ARRAY[projector, query] LOOP
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', current_schema(), role);
        -- For tables that the owner makes later.
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT ON TABLES TO %I',
            owner, current_schema(), role);
    END LOOP;
    EXECUTE format('GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA %I TO %I', current_schema(), projector);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT INSERT, UPDATE ON TABLES TO %I',
        owner, current_schema(), projector);
    EXECUTE format('GRANT DELETE ON members, leases TO %I', projector);
    -- A rebuild makes, renames and drops tables, which only their owner may: by these functions, and in no other way.
    EXECUTE format('GRANT EXECUTE ON FUNCTION rebuild_begin(), rebuild_index(), rebuild_swap(), rebuild_drop() TO %I', projector);
    EXECUTE format('REVOKE INSERT, UPDATE ON migrations, read_models FROM %I', projector);
    EXECUTE format('REVOKE UPDATE ON deployment FROM %I', projector);
END
$$;

COMMIT;
