# The image for amd64 and arm64: docker buildx build --platform linux/amd64,linux/arm64 .
# Everything is compiled on the architecture of the machine that builds. Nothing of the build gets into the image but the
# folder that scripts/image-root.sh fills, the same that the tests start their Pods from.
ARG RUST_VERSION=1.95.0
FROM --platform=$BUILDPLATFORM rust:${RUST_VERSION}-slim-bookworm AS build
ARG BUILDARCH
ARG TARGETARCH
# What `portico version` says it was built from.
ARG PORTICO_COMMIT
# Not a name that any path in the program has, since scripts/image-root.sh looks there for that of its folder.
WORKDIR /portico-checkout
COPY . .
RUN bash scripts/setup.sh image "$TARGETARCH"
RUN PORTICO_COMMIT=$PORTICO_COMMIT bash scripts/image-root.sh "$TARGETARCH" \
    && if [ "$TARGETARCH" != "$BUILDARCH" ]; then mv "target/image-root-$TARGETARCH" target/image-root; fi

FROM scratch
COPY --from=build /portico-checkout/target/image-root/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/portico"]
