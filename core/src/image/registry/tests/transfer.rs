//! Blobs and manifests on their way: whole, in parts, broken, late.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{Asked, Reply, Server};
use super::*;

const BLOB: &[u8] = b"0123456789";

#[test]
fn what_is_fetched_is_what_is_there() {
    let server = Server::new(|asked: &Asked| match asked.target.as_str() {
        "/v2/team/app/manifests/latest" => {
            Reply::ok(MANIFEST).with("Content-Type", "application/json; charset=utf-8")
        }
        "/v2/team/app/manifests/plain" => Reply::ok(b"{}").with("Content-Type", "a/b; c=d"),
        _ => Reply::ok(BLOB),
    });
    let setup = Setup::new();
    let mut client = setup.client(&server.host());
    let fetched = client.manifest("latest", &mut guide()).unwrap();
    assert_eq!(fetched.bytes, MANIFEST);
    assert_eq!(fetched.media_type, "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(client.manifest("plain", &mut guide()).unwrap().media_type, "a/b");
    let accepted = server.asked()[0].header("accept").to_owned();
    for kind in
        ["image.index.v1", "image.manifest.v1", "manifest.list.v2", "distribution.manifest.v2"]
    {
        assert!(accepted.contains(kind), "{accepted}");
    }
    let digest = digest::sha256(BLOB);
    assert_eq!(blob_of(&mut client, &digest, 0).unwrap().unwrap(), BLOB);
    let last = server.asked().pop().unwrap();
    assert!(last.is("GET", &format!("/v2/team/app/blobs/{digest}")));
    assert_eq!((last.header("range"), last.header("accept-encoding")), ("", "identity"));
}

#[test]
fn a_manifest_has_the_digest_it_was_asked_for_by() {
    let server = Server::new(|_: &Asked| {
        // A header proves nothing.
        Reply::ok(MANIFEST).with("Docker-Content-Digest", digest::sha256(b"other").to_string())
    });
    let setup = Setup::new();
    let mut client = setup.client(&server.host());
    let right = digest::sha256(MANIFEST).to_string();
    assert_eq!(client.manifest(&right, &mut guide()).unwrap().bytes, MANIFEST);
    let wrong = digest::sha256(b"other").to_string();
    let error = client.manifest(&wrong, &mut guide()).unwrap_err();
    assert_eq!(error.category(), Category::Spec);
    assert!(error.to_string().contains(&wrong) && error.to_string().contains(&right), "{error}");
}

#[test]
fn manifests_that_cannot_be_used_are_refused() {
    let server = Server::new(|asked: &Asked| match asked.target.rsplit('/').next().unwrap() {
        "old" => Reply::ok(br#"{"schemaVersion": 1}"#),
        "older" => Reply::ok(b"{}")
            .with("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        "large" => Reply::ok(&vec![b' '; LARGEST_MANIFEST as usize + 1]),
        "broken" => Reply { length: Some(100), ..Reply::ok(MANIFEST) },
        _ => Reply::new(404).body(r#"{"errors": [{"code": "MANIFEST_UNKNOWN"}]}"#),
    });
    let setup = Setup::new();
    let mut client = setup.client(&server.host());
    for (tag, category) in [
        ("old", Category::Unsupported),
        ("older", Category::Unsupported),
        ("large", Category::Resource),
        ("broken", Category::System),
        ("missing", Category::NotFound),
        ("../x", Category::Invalid),
        ("a?b", Category::Invalid),
        ("", Category::Invalid),
    ] {
        let error = client.manifest(tag, &mut guide()).unwrap_err();
        assert_eq!(error.category(), category, "{tag}: {error}");
        let name = format!("manifest {tag}: ");
        assert!(category == Category::Invalid || error.to_string().starts_with(&name), "{error}");
    }
    let broken = server.asked().iter().filter(|asked| asked.target.ends_with("broken")).count();
    assert_eq!((broken, server.asked().len()), (4, 8));
}

#[test]
fn a_manifest_that_breaks_off_is_asked_for_again() {
    let count = AtomicUsize::new(0);
    let server = Server::new(move |_: &Asked| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply { length: Some(100), ..Reply::ok(MANIFEST) },
        _ => Reply::ok(MANIFEST),
    });
    let setup = Setup::new();
    let fetched = setup.client(&server.host()).manifest("latest", &mut guide()).unwrap();
    assert_eq!(fetched.bytes, MANIFEST);
}

#[test]
fn a_registry_that_is_away_for_a_moment_is_waited_for() {
    fn serve(listener: TcpListener, status: &str, body: &[u8]) {
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).unwrap();
        let text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
        stream.write_all(&[text.as_bytes(), body].concat()).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        serve(listener, "200 OK", b"Content-Length: 10\r\n\r\n0123");
        std::thread::sleep(Duration::from_millis(50));
        let rest = b"Content-Range: bytes 4-9/10\r\nContent-Length: 6\r\n\r\n456789";
        serve(TcpListener::bind(address).unwrap(), "206 Partial Content", rest);
    });
    let plain = format!(r#"{{"registries": {{"{address}": {{"plainHttp": true}}}}}}"#);
    let setup = Setup::new().registries(&plain);
    let mut client = setup.client(&address.to_string());
    let digest = digest::sha256(BLOB);
    blob_of(&mut client, &digest, 0).unwrap_err();
    assert_eq!(blob_of(&mut client, &digest, 4).unwrap().unwrap(), &BLOB[4..]);
    server.join().unwrap();
}

#[test]
fn a_blob_goes_on_where_it_was_broken_off() {
    let server = Server::new(|asked: &Asked| match asked.header("range") {
        "" => Reply { length: Some(BLOB.len()), ..Reply::ok(&BLOB[..4]) },
        "bytes=4-" => Reply::new(206).with("Content-Range", "bytes 4-9/10").body(&BLOB[4..]),
        "bytes=5-" => Reply::new(206).with("Content-Range", "bytes 0-9/10").body(BLOB),
        "bytes=6-" => Reply::ok(BLOB),
        _ => Reply::new(416),
    });
    let setup = Setup::new();
    let mut client = setup.client(&server.host());
    let digest = digest::sha256(BLOB);
    let mut bytes = Vec::new();
    {
        let mut blob = client.blob(&digest, 0, &mut guide()).unwrap().unwrap();
        let error = blob.read_to_end(&mut bytes).unwrap_err();
        let error = digest::unwrap(error, String::new);
        assert!(error.to_string().contains(digest.as_ref()), "{error}");
        // The end does not become a good one by asking again.
        assert!(blob.read(&mut [0; 8]).is_err());
    }
    assert_eq!(bytes, &BLOB[..4]);
    assert_eq!(blob_of(&mut client, &digest, 4).unwrap().unwrap(), &BLOB[4..]);
    for from in [5, 6, 7] {
        assert!(blob_of(&mut client, &digest, from).unwrap().is_none(), "{from}");
    }
}

#[test]
fn a_registry_that_is_busy_is_asked_again() {
    let count = AtomicUsize::new(0);
    let server = Server::new(move |_: &Asked| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::new(429).with("Retry-After", "0"),
        1 => Reply::new(503),
        2 => Reply { length: Some(1), ..Reply::new(502) },
        _ => Reply::ok(MANIFEST),
    });
    let setup = Setup::new();
    setup.client(&server.host()).manifest("latest", &mut guide()).unwrap();
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn a_registry_that_wants_too_much_patience_is_given_up() {
    for (wait, requests) in [("0", 4), ("3600", 1), ("Wed, 21 Oct 2026 07:28:00 GMT", 1)] {
        let server = Server::new(move |_: &Asked| Reply::new(429).with("Retry-After", wait));
        let setup = Setup::new();
        let error = setup.client(&server.host()).manifest("latest", &mut guide()).unwrap_err();
        assert_eq!(error.category(), Category::Resource);
        assert!(error.advice().unwrap().contains(wait));
        assert_eq!(server.asked().len(), requests);
    }
    // Longer than the call may take.
    let server = Server::new(|_: &Asked| Reply::new(429).with("Retry-After", "20"));
    let setup = Setup::new();
    let transfer = Transfer { timeout: Some(Duration::from_secs(10)), ..Transfer::default() };
    let mut client = setup.client(&server.host());
    let error = client.manifest("latest", &mut Guide::new(transfer)).unwrap_err();
    assert_eq!(error.category(), Category::Resource);
    assert_eq!(server.asked().len(), 1);
}

/// A manifest, and a blob of which only the beginning comes.
fn stalling() -> Server {
    Server::new(|asked: &Asked| match asked.target.contains("manifests") {
        true => Reply { stalls: true, length: Some(100), ..Reply::ok(b"{") },
        false => Reply { stalls: true, length: Some(BLOB.len()), ..Reply::ok(&BLOB[..4]) },
    })
}

#[test]
fn a_call_that_waits_can_be_cancelled() {
    let server = stalling();
    let setup = Setup::new();
    let cancel = Cancel::new().unwrap();
    let mut client = setup.client(&server.host());
    let digest = digest::sha256(BLOB);
    let transfer = Transfer { cancel: Some(&cancel), ..Transfer::default() };
    let mut guide = Guide::new(transfer);
    let mut blob = client.blob(&digest, 0, &mut guide).unwrap().unwrap();
    let mut start = [0; 4];
    blob.read_exact(&mut start).unwrap();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            cancel.cancel();
        });
        blob.read(&mut [0; 8]).unwrap_err()
    });
    assert_eq!(digest::unwrap(error, String::new).category(), Category::Cancelled);
    drop(blob);
    let error = client.manifest("latest", &mut guide).unwrap_err();
    assert_eq!(error.category(), Category::Cancelled);
}

#[test]
fn a_call_that_waits_ends_with_its_time() {
    let server = stalling();
    let setup = Setup::new();
    let transfer = Transfer { timeout: Some(Duration::from_millis(200)), ..Transfer::default() };
    let mut client = setup.client(&server.host());
    let error = client.manifest("latest", &mut Guide::new(transfer)).unwrap_err();
    assert_eq!(error.category(), Category::Timeout);
    assert_eq!(error.to_string(), "the deadline passed");
}

#[test]
fn a_pause_can_be_cancelled() {
    let cancel = Cancel::new().unwrap();
    let stop = cancel.clone();
    let server = Server::new(move |_: &Asked| {
        stop.cancel();
        Reply::new(429).with("Retry-After", "30")
    });
    let setup = Setup::new();
    let mut guide = Guide::new(Transfer { cancel: Some(&cancel), ..Transfer::default() });
    let error = setup.client(&server.host()).manifest("latest", &mut guide).unwrap_err();
    assert_eq!(error.category(), Category::Cancelled);
}

#[test]
fn nobody_listening_is_an_error_that_says_where() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let setup = Setup::new();
    let error = setup.client(&host).manifest("latest", &mut guide()).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ECONNREFUSED));
    assert!(error.to_string().contains(&format!("connect to {host}")), "{error}");
}

#[test]
fn blobs_are_uploaded_wherever_the_registry_wants_them() {
    for (location, expected) in [
        ("/v2/up/1?state=a%3D", "/v2/up/1?state=a%3D&digest="),
        ("2", "/v2/team/app/blobs/uploads/2?digest="),
        ("http://HOST/3", "/3?digest="),
    ] {
        let own = Arc::new(Mutex::new(String::new()));
        let host = own.clone();
        let server = Server::new(move |asked: &Asked| match asked.method.as_str() {
            _ if asked.header("authorization").is_empty() => {
                Reply::new(401).with("WWW-Authenticate", "Basic realm=r")
            }
            "POST" => {
                let place = location.replace("HOST", &host.lock().unwrap());
                Reply::new(202).with("Location", place)
            }
            "HEAD" => Reply::new(404),
            _ => Reply::new(201),
        });
        *own.lock().unwrap() = server.host();
        let setup = Setup::new().credentials("user", "geheim");
        let mut client = setup.client(&server.host());
        for body in [vec![7; 300_000], Vec::new()] {
            let digest = digest::sha256(&body);
            assert!(!client.has_blob(&digest, &mut guide()).unwrap());
            let size = body.len() as u64;
            client.put_blob(&digest, size, || Ok(body.as_slice()), &mut guide()).unwrap();
            let put = server.asked().pop().unwrap();
            let target = format!("{expected}{}", digest.as_ref().replace(':', "%3A"));
            assert!(put.is("PUT", &target), "{} {}", put.method, put.target);
            assert!(put.body == body);
            assert_eq!(put.header("content-type"), "application/octet-stream");
        }
    }
}

#[test]
fn an_upload_elsewhere_takes_no_credentials_along() {
    let storage = Server::new(|_: &Asked| Reply::new(201));
    let place = format!("http://{}/x", storage.host());
    let server = Server::new(move |asked: &Asked| match asked.header("authorization") {
        "" => Reply::new(401).with("WWW-Authenticate", "Basic realm=r"),
        _ => Reply::new(202).with("Location", place.clone()),
    });
    let setup = Setup::new().credentials("user", "geheim");
    let mut client = setup.client(&server.host());
    client.put_blob(&digest::sha256(BLOB), 10, || Ok(BLOB), &mut guide()).unwrap();
    assert_eq!(storage.asked()[0].header("authorization"), "");
}

#[test]
fn an_upload_fails_with_its_source_and_with_its_registry() {
    let server = Server::new(|asked: &Asked| match asked.method.as_str() {
        "POST" => Reply::new(202).with("Location", "/up"),
        _ => Reply::new(400).body(r#"{"errors": [{"code": "DIGEST_INVALID"}]}"#),
    });
    let setup = Setup::new();
    let mut client = setup.client(&server.host());
    let digest = digest::sha256(BLOB);
    let error = client.put_blob(&digest, 10, || Ok(BLOB), &mut guide()).unwrap_err();
    assert!(error.to_string().ends_with("answers 400: DIGEST_INVALID"), "{error}");
    let error = client.put_blob(&digest, 11, || Ok(BLOB), &mut guide()).unwrap_err();
    assert!(error.to_string().ends_with("ends 1 bytes too early"), "{error}");

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(digest::wrap(Error::new(Category::Callback, Stage::Image, "stop")))
        }
    }
    let error = client.put_blob(&digest, 10, || Ok(Broken), &mut guide()).unwrap_err();
    assert_eq!(error.category(), Category::Callback);
}

#[test]
fn a_manifest_is_pushed_as_it_is() {
    let server = Server::new(|_: &Asked| Reply::new(201));
    let setup = Setup::new();
    let mut client = setup.client(&server.host());
    client.put_manifest("v1", "a/b", MANIFEST, &mut guide()).unwrap();
    let asked = server.asked().pop().unwrap();
    assert!(asked.is("PUT", "/v2/team/app/manifests/v1"));
    assert_eq!((asked.header("content-type"), asked.body.as_slice()), ("a/b", MANIFEST));
}

#[test]
fn an_upload_that_fails_for_a_moment_is_begun_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let uploads = count.clone();
    let server = Server::new(move |asked: &Asked| match asked.method.as_str() {
        "POST" => Reply::new(202).with("Location", "/up"),
        _ => match uploads.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::new(503).with("Retry-After", "0"),
            1 => Reply::new(401),
            2 => Reply::new(201),
            3 => Reply::new(403),
            _ => Reply::new(429).with("Retry-After", "0"),
        },
    });
    let setup = Setup::new();
    let mut client = setup.client(&server.host());
    let digest = digest::sha256(BLOB);
    client.put_blob(&digest, 10, || Ok(BLOB), &mut guide()).unwrap();
    let bodies: Vec<Vec<u8>> = server.asked().into_iter().map(|asked| asked.body).collect();
    assert_eq!(bodies, [b"", BLOB, b"", BLOB, b"", BLOB]);
    for (category, uploads) in [(Category::Permission, 4), (Category::Resource, 7)] {
        let error = client.put_blob(&digest, 10, || Ok(BLOB), &mut guide()).unwrap_err();
        assert_eq!((error.category(), count.load(Ordering::Relaxed)), (category, uploads));
    }
}
