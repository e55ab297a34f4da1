# An image on ubuntu:24.04. The context holds the static binary as `whim`.
FROM ubuntu:24.04
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl git nodejs npm \
    && rm -rf /var/lib/apt/lists/*
RUN npm install -g @anthropic-ai/claude-code && npm cache clean --force
# Ubuntu brings a user of its own with the first uid.
RUN userdel --remove ubuntu && useradd --create-home --shell /bin/bash node
COPY --chmod=755 whim /usr/local/bin/whim
# 8080 previews, 8081 platform, 7681 people.
EXPOSE 8080 8081 7681
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s CMD ["whim", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["whim", "run"]
