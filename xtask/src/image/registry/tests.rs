//! The protocol, against a registry as Debian packages it; and how registries are named.

use super::*;

#[test]
fn a_place_is_host_and_path() {
    let read = |text| Place::read(text, "app").map(|place| place.to_string());
    for (text, whole) in [
        ("127.0.0.1:5000", "127.0.0.1:5000/app"),
        ("localhost/team", "localhost/team/app"),
        ("ghcr.io/team/app", "ghcr.io/team/app"),
        ("ghcr.io/team/myapp/", "ghcr.io/team/myapp/app"),
    ] {
        assert_eq!(read(text).as_deref(), Ok(whole));
    }
    for text in ["", "team/app", "https://ghcr.io/team", "ghcr.io/Team", "ghcr.io//x"] {
        assert!(read(text).is_err(), "{text}");
    }
    let is_plain = |text| base(&Place::read(text, "app").unwrap()).unwrap().scheme() == "http";
    assert!(is_plain("127.0.0.1:5000") && is_plain("localhost") && is_plain("[::1]:5000/x"));
    assert!(!is_plain("10.0.0.1:5000") && !is_plain("ghcr.io/x") && !is_plain("127.0.0.1.example.com/x"));
}

#[test]
fn a_challenge_is_read() {
    let challenge =
        r#"realm="https://auth.example/token",service="registry.example",scope="repository:a:pull""#;
    assert_eq!(parameter(challenge, "realm").as_deref(), Some("https://auth.example/token"));
    assert_eq!(parameter(challenge, "service").as_deref(), Some("registry.example"));
    assert_eq!(parameter(challenge, "error"), None);
    assert_eq!(url::form(&[("a", "b c"), ("d", "&")]), "a=b+c&d=%26");
}

/// A registry on this machine, as Debian packages it; ends with the test.
struct Served {
    process: std::process::Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[allow(clippy::print_stderr, reason = "whoever runs the tests must see what was not tested")]
async fn served(auth: &str) -> Option<Served> {
    let Ok(program) = which::which("docker-registry") else {
        eprintln!("NOT TESTED: a push to a real registry; Debian's package docker-registry brings one");
        return None;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let data = folder.path().join("data");
    let config = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{auth}",
        data.display()
    );
    let file = folder.path().join("config.yml");
    std::fs::write(&file, config).expect("writing");
    let mut command = std::process::Command::new(program);
    command.arg("serve").arg(&file).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let process = command.spawn().expect("a registry");
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < until, "the registry does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Some(Served { process, folder, port })
}

fn image(folder: &Path, code: &str) -> (std::path::PathBuf, Packed) {
    use super::super::archive::{self, Contents, Entry};
    let entry = |name: &str, text: String| {
        let from = folder.join(name);
        std::fs::write(&from, text).expect("writing");
        vec![Entry { from, to: name.to_owned(), executable: false }]
    };
    let contents = Contents {
        reference: "app:1".to_owned(),
        architecture: super::super::ARCHITECTURE.to_owned(),
        layers: vec![entry("model", "m".repeat(300_000)), entry("code", code.to_owned())],
        entrypoint: vec!["/code".to_owned()],
        env: Vec::new(),
        user: "1:1".to_owned(),
        ports: Vec::new(),
    };
    let path = folder.join("image.tar");
    archive::write(&path, &contents).expect("an archive");
    let packed = archive::read(&path).expect("its parts");
    (path, packed)
}

fn registry(served: &Served, login: Option<Login>) -> Registry {
    drop(rustls::crypto::ring::default_provider().install_default());
    let place = Place::read(&format!("127.0.0.1:{}/team", served.port), "app").expect("a place");
    Registry::new(&place, login).expect("a registry")
}

#[tokio::test]
async fn what_the_registry_has_is_not_sent_again() {
    let Some(served) = served("").await else { return };
    let registry = registry(&served, None);
    let push = async |code: &str, tag: &str| {
        let (path, packed) = image(served.folder.path(), code);
        let pushed = registry.push(&path, &packed, tag, drop).await.expect("a push");
        (pushed, packed.digest)
    };
    let (first, digest) = push("one", "1").await;
    assert_eq!(first.sent, first.whole);
    assert_eq!(registry.manifest(&digest).await.expect("an answer"), Some(digest.clone()));
    assert_eq!(registry.manifest("1").await.expect("an answer"), Some(digest.clone()));
    // Nothing was edited.
    let (again, same) = push("one", "1").await;
    assert_eq!((again.sent, same), (0, digest));
    // The code was: the model's layer is not sent.
    let (edited, other) = push("two", "2").await;
    assert!(edited.sent < 20_000 && edited.whole > 300_000, "{edited:?}");
    assert_eq!(registry.manifest("2").await.expect("an answer"), Some(other));
    assert_eq!(registry.manifest("3").await.expect("an answer"), None);
}

/// A registry that asks for a password, its user and password kept as htpasswd keeps them.
#[tokio::test]
async fn who_may_not_push_is_told_how_to_log_in() {
    let users = tempfile::NamedTempFile::new().expect("a file");
    // `user`, `secret`
    let line = "user:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
    std::fs::write(users.path(), line).expect("writing");
    let auth = format!("auth: {{htpasswd: {{realm: lab, path: {}}}}}\n", users.path().display());
    let Some(served) = served(&auth).await else { return };
    let (path, packed) = image(served.folder.path(), "one");
    for login in [None, Some(Login::Password("user".to_owned(), "wrong".to_owned()))] {
        let refused = registry(&served, login).push(&path, &packed, "1", drop).await.unwrap_err();
        assert!(format!("{refused:#}").contains("answered 401"), "{refused:#}");
        let hint = crate::failure::attached::<crate::failure::Hint>(&refused).expect("a hint");
        assert_eq!(
            hint.0,
            format!("`docker login 127.0.0.1:{}` with a user who may push there", served.port).into()
        );
    }
    let login = Some(Login::Password("user".to_owned(), "secret".to_owned()));
    let pushed = registry(&served, login).push(&path, &packed, "1", drop).await.expect("a push");
    assert_eq!(pushed.sent, pushed.whole);
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named() {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let place = Place::read(&format!("127.0.0.1:{port}"), "app").expect("a place");
    drop(rustls::crypto::ring::default_provider().install_default());
    let error = Registry::new(&place, None).expect("a registry").manifest("1").await.unwrap_err();
    let text = crate::failure::paragraph(&error);
    assert!(text.starts_with(&format!("the registry 127.0.0.1:{port} can't be reached: ")), "{text}");
}
