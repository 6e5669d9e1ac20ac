# The image, in stages. Nothing here needs a particular builder.
#
#   docker build .                                 compiles, and adds the agent CLI
#   docker build --target server .                 without an agent CLI
#   docker build --build-arg BINARY_FROM=release --build-arg RELEASE=URL_OR_FILE .
#                                                  takes a release's tarball (a file below this folder, or an address) instead of compiling
#
# The base images are build arguments too: BASE, RUST_IMAGE, NODE_IMAGE.
ARG BASE=debian:bookworm-slim
ARG RUST_IMAGE=rust:1.95-bookworm
ARG NODE_IMAGE=node:22-bookworm-slim
# Which stage the binary comes from: compile or release.
ARG BINARY_FROM=compile

# Compiles the plugins and the binary that holds them.
FROM ${RUST_IMAGE} AS compile
WORKDIR /src
COPY . .
RUN cargo xtask build --release && install -D target/release/agenticore /out/agenticore

# Unpacks a release: a tarball with the binary anywhere in it.
FROM ${BASE} AS release
ARG RELEASE=release.tar.gz
ADD ${RELEASE} /in/
RUN for file in /in/*.tar.gz /in/*.tgz; do \
      if [ -f "$file" ]; then tar -xzf "$file" -C /in; fi; \
    done; \
    binary=$(find /in -type f -name agenticore | head -n 1); \
    [ -n "$binary" ] || { echo "the release holds no file called agenticore" >&2; exit 1; }; \
    mkdir -p /out && cp "$binary" /out/agenticore && chmod 0755 /out/agenticore

FROM ${BINARY_FROM} AS binary

# The agent CLI: a program of its own, which the bundled profile `code` starts.
FROM ${NODE_IMAGE} AS agent-cli
ARG AGENT_CLI=@anthropic-ai/claude-code@2.1.197
RUN npm install --global --prefix /opt/agent --no-audit --no-fund "${AGENT_CLI}"

# The server with git; plugins and profiles are in the binary, and for reading in /usr/local/share/agenticore.
FROM ${BASE} AS server
RUN if ! { command -v git && command -v ssh && [ -e /etc/ssl/certs/ca-certificates.crt ]; } >/dev/null; then \
      apt-get update && \
      apt-get install --yes --no-install-recommends ca-certificates git git-lfs openssh-client && \
      rm -rf /var/lib/apt/lists/*; \
    fi
# A number, because that is what runAsNonRoot can check. The home is a volume where the root is read-only.
RUN groupadd --gid 10001 agenticore && \
    useradd --uid 10001 --gid 10001 --create-home --home-dir /home/agenticore --shell /usr/sbin/nologin agenticore && \
    mkdir -p /shared /data && chown 10001:10001 /shared /data
COPY profiles /usr/local/share/agenticore/profiles
COPY policies /usr/local/share/agenticore/policies
COPY LICENSE /usr/local/share/agenticore/LICENSE
COPY --from=binary /out/agenticore /usr/local/bin/agenticore
ENV HOME=/home/agenticore \
    AGENTICORE_HOST=0.0.0.0 \
    LANG=C.UTF-8
WORKDIR /home/agenticore
EXPOSE 8200
USER 10001:10001
# The server is a whole init: it adopts and reaps orphans, and SIGTERM drains it.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/agenticore"]
CMD ["serve"]

# The server with the agent CLI.
FROM server AS agent
COPY --from=agent-cli /opt/agent /opt/agent
ENV PATH=/opt/agent/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
