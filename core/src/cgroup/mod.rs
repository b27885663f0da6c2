//! Cgroups: v1, v2 and hybrid behind one type.

/// Resource usage of a container.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Stats {}
