//! What `wit-bindgen` makes of the interface. Nothing is written by hand here.
#![allow(missing_docs, unsafe_code, reason = "generated; the documentation is in the WIT files")]

/// The world of plugins that handle stages, with all imports there are.
pub mod plugin {
    wit_bindgen::generate!({
        path: "wit",
        world: "plugin",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
    });
}

/// The world of judges, whose imports are those of the other world.
pub mod judge {
    wit_bindgen::generate!({
        path: "wit",
        world: "judge",
        pub_export_macro: true,
        export_macro_name: "export_validator",
        with: {
            "locule:plugin/types@0.1.0": crate::bindings::plugin::locule::plugin::types,
            "locule:plugin/config@0.1.0": crate::bindings::plugin::locule::plugin::config,
            "locule:plugin/log@0.1.0": crate::bindings::plugin::locule::plugin::log,
            "locule:plugin/kv@0.1.0": crate::bindings::plugin::locule::plugin::kv,
            "locule:plugin/spec-view@0.1.0": crate::bindings::plugin::locule::plugin::spec_view,
        },
    });
}
