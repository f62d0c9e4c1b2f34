#!/bin/sh
# A synchronous standby of the PostgreSQL on the host $PRIMARY, for docker-compose.yml: copied from it when there is nothing here yet.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    export PGPASSWORD="$POSTGRES_PASSWORD"
    ask() { psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --host "$PRIMARY" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --command "$1"; }
    rm -rf "$PGDATA.new"
    ask "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'standby'"
    pg_basebackup --dbname "host=$PRIMARY user=$POSTGRES_USER application_name=standby" --pgdata "$PGDATA.new" \
        --wal-method=stream --checkpoint=fast --write-recovery-conf --create-slot --slot=standby
    # Once promoted it has no standby of its own yet, and must not wait for one.
    echo "synchronous_standby_names = ''" >>"$PGDATA.new/postgresql.auto.conf"
    # From here on the primary waits with every commit until this one has it. Before the data have their name: a standby that was killed
    # in between begins anew, and never follows without being waited for.
    ask "ALTER SYSTEM SET synchronous_standby_names = 'standby'"
    ask "SELECT pg_reload_conf()"
    mkdir -p "$(dirname "$PGDATA")"
    rm -rf "$PGDATA"
    mv "$PGDATA.new" "$PGDATA"
    unset PGPASSWORD
fi
exec postgres -c max_connections=500
