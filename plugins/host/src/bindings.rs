//! The interfaces of `plugins/wit` as Rust sees them.

#![allow(missing_docs, reason = "they are documented where they are defined")]

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package locule:host;
        world powers {
            import locule:plugin/types@0.1.0;
            import locule:plugin/config@0.1.0;
            import locule:plugin/event@0.1.0;
            import locule:plugin/log@0.1.0;
            import locule:plugin/kv@0.1.0;
            import locule:plugin/spec-view@0.1.0;
            import locule:plugin/adjust-annotations@0.1.0;
            import locule:plugin/adjust-env@0.1.0;
            import locule:plugin/adjust-mounts@0.1.0;
            import locule:plugin/adjust-devices@0.1.0;
            import locule:plugin/adjust-resources@0.1.0;
            import locule:plugin/adjust-rlimits@0.1.0;
            import locule:plugin/adjust-process@0.1.0;
            import locule:plugin/adjust-namespaces@0.1.0;
            import locule:plugin/adjust-security@0.1.0;
            import locule:plugin/adjust-hooks@0.1.0;
            import locule:plugin/adjust-raw@0.1.0;
        }
    ",
    imports: { default: trappable },
});
