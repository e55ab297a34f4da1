# The agent host in a container image.
#
#   docker build -t whim .                                        all agents, on Ubuntu
#   docker build -t whim --build-arg AGENTS="claude codex" .      these agents only
#   docker build -t whim --build-arg BASE_IMAGE=debian:12 .       on any base with glibc and apt, or with git and node
#
# `cargo xtask image` builds it without a registry: PREBUILT names a binary in the context, all three images are one
# local base, and the agents' packages are in the context already.

ARG BASE_IMAGE=ubuntu:24.04
ARG NODE_IMAGE=node:22-bookworm-slim
ARG RUST_IMAGE=rust:1.95-bookworm

FROM ${NODE_IMAGE} AS web
ARG PREBUILT=""
WORKDIR /src
COPY . .
RUN mkdir -p web/dist; if [ -z "$PREBUILT" ] && [ -f web/package.json ]; then cd web && npm ci --no-audit --no-fund && npm run build; fi

FROM ${RUST_IMAGE} AS binary
ARG PREBUILT=""
WORKDIR /src
COPY . .
COPY --from=web /src/web/dist web/dist
RUN set -e; \
    if [ -z "$PREBUILT" ]; then PREBUILT=$(cargo xtask build --profile release | tail -n 1); fi; \
    install -m 755 "$PREBUILT" /whim

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="whim" org.opencontainers.image.licenses="Apache-2.0"

# What agents need of a machine, as far as the base lacks it.
RUN set -e; want=""; \
    command -v git >/dev/null || want="$want git"; \
    command -v node >/dev/null || want="$want nodejs"; \
    [ -f /etc/ssl/certs/ca-certificates.crt ] || want="$want ca-certificates"; \
    if [ -n "$want" ]; then \
        apt-get update && apt-get install -y --no-install-recommends $want && rm -rf /var/lib/apt/lists/*; \
    fi

# Agents and shells run as this user; whim itself starts as root and hands out nothing of that.
RUN id node >/dev/null 2>&1 || useradd --create-home --shell /bin/bash node; install -d -o node -g node /app

# The versions are pinned by the lock file; AGENTS chooses among them.
ARG AGENTS="claude codex ccr copilot"
COPY tests/kit/agents/ /opt/agents/
RUN set -e; cd /opt/agents; [ ! -d node_modules ] || exit 0; \
    drop=""; \
    for pair in claude=@anthropic-ai/claude-code codex=@openai/codex ccr=@musistudio/claude-code-router copilot=@github/copilot; do \
        case " $AGENTS " in *" ${pair%%=*} "*) ;; *) drop="$drop ${pair#*=}";; esac; \
    done; \
    npm=""; command -v npm >/dev/null || npm=npm; \
    if [ -n "$npm" ]; then apt-get update && apt-get install -y --no-install-recommends $npm; fi; \
    [ -z "$drop" ] || npm uninstall --package-lock-only --no-audit --no-fund $drop; \
    npm ci --no-audit --no-fund; \
    [ ! -d node_modules/@anthropic-ai ] || (cd node_modules/@anthropic-ai/claude-code && node install.cjs); \
    rm -rf /root/.npm /var/lib/apt/lists/*
ENV PATH=/opt/agents/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

COPY --from=binary /whim /usr/local/bin/whim

# 8080 previews, 8081 platform, 7681 people; 3001 is for the agents and loopback only.
EXPOSE 8080 8081 7681
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s CMD ["whim", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["whim", "run"]
