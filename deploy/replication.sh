# Lets a standby in, with a password like everybody else: run once, when PostgreSQL's data are made (docker-compose.yml).
echo 'host replication all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
