//! What host and keeper say to each other. What can be read is what can be written.

use locule_plan::protocol::{Gate, Reply, Request};

pub fn run(bytes: &[u8]) {
    if let Some(request) = Request::decode(bytes) {
        assert_eq!(Request::decode(&request.encode()), Some(request));
    }
    if let Some(gate) = Gate::decode(bytes) {
        assert_eq!([gate as u8], bytes);
    }
    if let Some(reply) = Reply::decode(bytes) {
        let mut buffer = [0; Reply::MAX_SIZE];
        let len = reply.encode(&mut buffer);
        assert_eq!(Reply::decode(&buffer[..len]), Some(reply));
    }
}
