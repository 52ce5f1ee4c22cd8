# The image for amd64 and arm64: docker buildx build --platform linux/amd64,linux/arm64 .
# The compiler runs on the architecture of the build machine. The image contains only the folder that
# scripts/image-root.sh creates, which the tests use for their Pods, too.
ARG RUST_VERSION=1.95.0
FROM --platform=$BUILDPLATFORM rust:${RUST_VERSION}-slim-bookworm AS build
ARG BUILDARCH
ARG TARGETARCH
# The commit that `portico version` prints.
ARG PORTICO_COMMIT
# scripts/image-root.sh searches the program for this path, so it must not match another string.
WORKDIR /portico-checkout
COPY . .
RUN bash scripts/setup.sh image "$TARGETARCH"
RUN PORTICO_COMMIT=$PORTICO_COMMIT bash scripts/image-root.sh "$TARGETARCH" \
    && if [ "$TARGETARCH" != "$BUILDARCH" ]; then mv "target/image-root-$TARGETARCH" target/image-root; fi

FROM scratch
COPY --from=build /portico-checkout/target/image-root/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/portico"]
