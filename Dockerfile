# One image for every program: docker build --build-arg PROGRAM=ztunnel -t fairway/ztunnel:0.1.0 .
FROM node:24-bookworm-slim AS build
WORKDIR /fairway
COPY . .
RUN npm ci --ignore-scripts && PATH="$PWD/node_modules/.bin:$PATH" TURBO_TELEMETRY_DISABLED=1 turbo run build && npm prune --omit=dev --ignore-scripts

FROM node:24-bookworm-slim
ARG PROGRAM
RUN apt-get update && apt-get install -y --no-install-recommends nftables iproute2 util-linux && rm -rf /var/lib/apt/lists/*
WORKDIR /fairway
COPY --from=build /fairway/node_modules node_modules
COPY --from=build /fairway/packages packages
COPY --from=build /fairway/examples examples
ENV FAIRWAY_PROGRAM=${PROGRAM} NODE_ENV=production
ENTRYPOINT ["sh", "-c", "exec node packages/${FAIRWAY_PROGRAM}/dist/main.js \"$@\"", "--"]
