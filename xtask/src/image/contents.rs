//! What the app's image is made of: the same as `app/Dockerfile.host` says.

use std::path::Path;

use super::archive::{Contents, Entry};
use crate::repository::REPOSITORY;

/// The image of a static binary for a processor, and a model.
pub fn contents(reference: &str, architecture: &str, binary: &Path, model_dir: &Path) -> Contents {
    let model = [xtask_weights::MODEL_FILE, xtask_weights::MANIFEST_FILE].map(|name| Entry {
        from: model_dir.join(name),
        to: format!("model/{name}"),
        executable: false,
    });
    let program = Entry { from: binary.to_owned(), to: REPOSITORY.to_owned(), executable: true };
    Contents {
        reference: reference.to_owned(),
        architecture: architecture.to_owned(),
        // Below the binary: an edit of the code moves a few MB, not 102.
        layers: vec![model.into(), vec![program]],
        entrypoint: vec![format!("/{REPOSITORY}")],
        env: vec!["MODEL_DIR=/model".to_owned()],
        // `nonroot` of the distroless images; by number, because the kubelet can't check a name.
        user: "65532:65532".to_owned(),
        ports: vec!["8000/tcp".to_owned()],
    }
}

/// The processor of this machine, in Go's words, which are Kubernetes' too.
pub const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    std::env::consts::ARCH
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_dockerfile_says() {
        let dockerfile = include_str!("../../../app/Dockerfile.host");
        let says = |word: &str| {
            let lines = dockerfile.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let contents = contents("app:1", ARCHITECTURE, Path::new("binary"), Path::new("model"));
        assert_eq!(says("ENTRYPOINT"), [serde_json::to_string(&contents.entrypoint).expect("JSON")]);
        assert_eq!(says("ENV"), contents.env);
        assert_eq!(says("USER"), [contents.user]);
        assert_eq!(says("EXPOSE").join(" "), contents.ports.join(" ").replace("/tcp", ""));
        let copied: Vec<_> = contents.layers.iter().map(|layer| layer[0].to.split('/').next()).collect();
        assert_eq!(says("COPY"), ["model/ /model/", "simple-model-api /simple-model-api"]);
        assert_eq!(copied, [Some("model"), Some("simple-model-api")]);
    }
}
