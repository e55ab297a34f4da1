# An image on Node's own, which brings the user `node`. The context holds the static binary as `whim`.
FROM node:22-bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl git \
    && rm -rf /var/lib/apt/lists/*
RUN npm install -g @anthropic-ai/claude-code && npm cache clean --force
COPY --chmod=755 whim /usr/local/bin/whim
# 8080 previews, 8081 platform, 7681 people.
EXPOSE 8080 8081 7681
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s CMD ["whim", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["whim", "run"]
