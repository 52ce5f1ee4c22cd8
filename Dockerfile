# `make image-root` builds what goes in; this only wraps it.
FROM scratch
COPY target/image-root/ /
USER 65532:65532
ENTRYPOINT ["/usr/bin/portico"]
