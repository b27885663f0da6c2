//! Starts keepers and speaks their protocol.
