# syntax=docker/dockerfile:1
# An image with the program, its web page and its model:
#   docker build -t polylance .
#   docker run --rm -v "$PWD:/data" polylance embed --source docs.jsonl --table docs.lance
ARG RUST_VERSION=1.95.0
ARG NODE_VERSION=22
ARG DEBIAN_VERSION=trixie

# The page that `polylance serve` shows.
FROM node:${NODE_VERSION}-${DEBIAN_VERSION}-slim AS page
WORKDIR /page
COPY crates/server/page/package.json crates/server/page/package-lock.json ./
ENV NPM_CONFIG_CACHE=/var/cache/npm
RUN --mount=type=cache,target=/var/cache/npm npm ci --no-audit --no-fund
COPY crates/server/page/ ./
RUN npm run build

FROM rust:${RUST_VERSION}-slim-${DEBIAN_VERSION} AS build
ARG RUST_VERSION
# The toolchain of the image, without the formatter and the lints that rust-toolchain.toml adds.
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION}
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libprotobuf-dev protobuf-compiler \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
COPY --from=page /page/dist crates/server/page/dist
# The caches are not part of the image, so the program is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package polylance-cli \
    && install -D target/release/polylance /out/polylance

FROM debian:${DEBIAN_VERSION}-slim
LABEL org.opencontainers.image.title="polylance" \
      org.opencontainers.image.description="Turn a text corpus into a searchable Lance table of embeddings" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home polylance \
    && install -d -o polylance -g polylance /data
COPY --from=build /out/polylance /usr/local/bin/polylance
COPY --chmod=755 docker/healthcheck /usr/local/bin/healthcheck
USER polylance
# Relative paths start here. A volume that is mounted here gets the owner of this folder.
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["/usr/local/bin/healthcheck"]
ENTRYPOINT ["polylance"]
CMD ["--help"]
