# The programs of the platform, for a user without rights. Which of them runs is the command's choice; see docker-compose.yml.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
# Names of functions stay, so that a backtrace can be read.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
# jemalloc is built with it.
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
# No protoc and no OpenSSL: protox compiles the protocol, and the image's C compiler does SQLite and the cryptography.
RUN cargo build --release --locked --package invoice-financing --bins \
    && mkdir /programs \
    && cp target/release/financing target/release/commandsd target/release/relayerd target/release/queryprojectord \
        target/release/queriesd target/release/populate /programs/

# The same Debian as above, hence the same C library.
FROM debian:bookworm-slim
# The certificates of the public authorities, for TLS to NATS and PostgreSQL.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /programs/ /usr/local/bin/
RUN useradd --create-home --uid 10001 financing
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
# The embedded platform keeps its files below the working directory.
WORKDIR /home/financing
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
CMD ["financing"]
