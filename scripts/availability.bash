# What scripts/services does where it was asked for high availability: a cluster of three servers of NATS, and a standby of
# PostgreSQL that has every commit before a client hears of it. To be sourced by scripts/services, whose functions it uses.
# shellcheck disable=SC2034,SC2154 # variables from and for the script that sources it

# Whether the folder was made for it. What was made without has other data: a queue of one server is not one of three.
recall_availability() {
    if [[ -e $dir/ha ]]; then
        ha=true
    elif $ha && [[ -e $dir/nats.port ]]; then
        die "$dir was made without --ha: choose another --dir"
    elif $ha && [[ $verb == up ]]; then
        touch -- "$dir/ha"
    fi
}

# ------------------------------------------------------------------------------------------------------------------ NATS

# What the configuration of the server $1 says of the others.
cluster_lines() {
    local other routes=()
    for other in nats-1 nats-2 nats-3; do
        [[ -s $dir/$other.route ]] || free_port >"$dir/$other.route"
        routes+=("nats://127.0.0.1:$(kept "$other.route")")
    done
    cat <<CONF
cluster {
    name: financing
    listen: "127.0.0.1:$(kept "$1.route")"
    routes: [$(IFS=, && echo "${routes[*]}")]
}
CONF
}

# JetStream answers over the server on port $1, which takes a majority that has chosen who leads it.
jetstream_answers() {
    local line answered=1
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    # shellcheck disable=SC2016 # the subject begins with a dollar
    printf 'CONNECT {"verbose":false}\r\nSUB answers 1\r\nPUB $JS.API.INFO answers 0\r\n\r\n' >&3 || true
    while IFS= read -r -t 2 line <&3; do
        case $line in
            *'"error"'*) break ;;
            *account_info_response*)
                answered=0
                break
                ;;
        esac
    done
    exec 3>&-
    return "$answered"
}

# Starts the three servers, the first on the port $1 where one is wanted, and returns once all of them answer for JetStream.
start_cluster() {
    local name tenths
    start nats-1 "$1"
    start nats-2 ''
    start nats-3 ''
    for name in nats-1 nats-2 nats-3; do
        for ((tenths = 0; tenths < START_TENTHS; tenths++)); do
            if jetstream_answers "$(kept "$name.port")"; then continue 2; fi
            sleep 0.1
        done
        tail -n 20 "$dir/$name.log" >&2
        die "JetStream does not answer over $name; see $dir/$name.log"
    done
}

# ------------------------------------------------------------------------------------------------------------ PostgreSQL

# A standby that streams, and without which nothing is committed.
provide_standby() {
    keep_secret standby.password
    copy_primary
    start standby ''
    await_sql "the standby follows" postgres "SELECT count(*) > 0 FROM pg_stat_replication WHERE application_name = 'standby' AND state = 'streaming'"
    # Only now: with a standby that is not there, every commit would wait for it.
    psql_as_superuser postgres <<'SQL' >/dev/null
ALTER SYSTEM SET synchronous_standby_names = 'standby';
SELECT pg_reload_conf();
SQL
    await_sql "the standby is synchronous" postgres "SELECT count(*) > 0 FROM pg_stat_replication WHERE application_name = 'standby' AND sync_state = 'sync'"
}

# Waits until the SQL $3, asked of the server $2, is true; $1 says what that means.
await_sql() {
    local tenths
    for ((tenths = 0; tenths < START_TENTHS; tenths++)); do
        if [[ $(PGPASSWORD=$(kept superuser.password) "$dir/bin/psql" -XqAt -h 127.0.0.1 -p "$(kept "$2.port")" -U postgres -d postgres -c "$3" 2>/dev/null) == t ]]; then
            return
        fi
        sleep 0.1
    done
    die "it does not come about that $1; see $dir/postgres.log and $dir/standby.log"
}

# Makes the standby's data from the primary's, unless they are there.
copy_primary() {
    local data
    data=$(data_of standby)
    [[ ! -s $data/PG_VERSION ]] || return 0
    say "copying PostgreSQL's data for a standby to $data"
    rm -rf -- "$data" "$postgres_home/copy"
    psql_as_superuser postgres <<SQL >/dev/null
SELECT 'CREATE ROLE standby REPLICATION LOGIN PASSWORD ''$(kept standby.password)''' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'standby') \\gexec
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'standby';
SQL
    PGPASSWORD=$(kept standby.password) "${as_postgres[@]}" "$(readlink -f "$dir/bin/pg_basebackup")" \
        --dbname="host=127.0.0.1 port=$(kept postgres.port) user=standby application_name=standby" --pgdata="$postgres_home/copy" \
        --wal-method=stream --checkpoint=fast --write-recovery-conf --create-slot --slot=standby >>"$dir/standby.log" 2>&1 \
        || die "pg_basebackup failed; see $dir/standby.log"
    # Once promoted it has no standby of its own yet, and must not wait for one.
    echo "synchronous_standby_names = ''" >>"$postgres_home/copy/postgresql.auto.conf"
    mv -- "$postgres_home/copy" "$data"
}

# How the server $1 of PostgreSQL stands, where there are two.
standing_of() {
    $ha || return 0
    case $1 in
        postgres) echo ", the primary" ;;
        standby)
            local state
            state=$(PGPASSWORD=$(kept superuser.password) "$dir/bin/psql" -XqAt -h 127.0.0.1 -p "$(kept postgres.port)" -U postgres -d postgres \
                -c "SELECT sync_state FROM pg_stat_replication WHERE application_name = 'standby'" 2>/dev/null) || true
            echo ", ${state:-not following}"
            ;;
    esac
}

# The standby becomes the primary: it takes over the port, which is the address that everybody knows, and gets a standby.
failover() {
    [[ -d $dir ]] || die "there is no folder $dir"
    lock_folder "$dir"
    known_postgres_home
    recall_availability
    $ha || die "$dir was made without --ha: there is no standby"
    local pid data standby
    data=$(data_of postgres) standby=$(data_of standby)
    [[ -s $standby/PG_VERSION ]] || die "there is no standby in $standby"
    # Two that take commits under one address would be two histories: what still runs ends first.
    if pid=$(running_postgres postgres); then end_process postgres QUIT "$pid" KILL; fi
    if pid=$(running_postgres standby); then end_process postgres INT "$pid" QUIT; fi
    # (A failover that was interrupted here is repeated: then these are gone already, and what is in before is the only copy.)
    if [[ -e $data ]]; then
        rm -rf -- "$postgres_home/before"
        mv -- "$data" "$postgres_home/before"
    fi
    mv -- "$standby" "$data"
    start postgres ''
    psql_as_superuser postgres <<<'SELECT pg_promote();' >/dev/null
    await_sql "the standby is promoted" postgres 'SELECT NOT pg_is_in_recovery()'
    say "promoted: the primary listens on 127.0.0.1:$(kept postgres.port); the data of the one before are in $postgres_home/before"
    provide_standby
    say_who_listens
}
