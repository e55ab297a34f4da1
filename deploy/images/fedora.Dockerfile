# An image on Fedora. The context holds the static binary as `whim`.
FROM fedora:42
RUN dnf install -y --setopt=install_weak_deps=False ca-certificates curl git nodejs npm procps-ng && dnf clean all
RUN npm install -g @anthropic-ai/claude-code && npm cache clean --force
RUN useradd --create-home --shell /bin/bash node
COPY --chmod=755 whim /usr/local/bin/whim
# 8080 previews, 8081 platform, 7681 people.
EXPOSE 8080 8081 7681
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s CMD ["whim", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["whim", "run"]
