//! What a container has changed becomes a layer.
