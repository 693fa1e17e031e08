//! What the tests load: weights from a seed, and ONNX Runtime's library where it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Weights from seed 42, made once and shared by all tests, whichever process they run in.
pub(crate) fn model_dir() -> PathBuf {
    static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = shared.join("model-42");
        let lock = fs::File::create(shared.join("model-42.lock")).unwrap();
        lock.lock().unwrap();
        if xtask_weights::verify(&dir).is_err() {
            xtask_weights::generate(42, &dir, &mut |_, _| {}).unwrap();
        }
        dir
    });
    DIR.clone()
}

/// ONNX Runtime's library: `ORT_DYLIB_PATH`, or where `scripts/install-onnxruntime` puts it. Without it half of a test
/// is not run, and that must be seen: the words pass by the test harness, which would keep them to itself.
pub(crate) fn onnxruntime_library() -> Option<PathBuf> {
    let given = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/onnxruntime");
    let installed = || {
        let mut files = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        files.find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime."))
        })
    };
    let library = given.or_else(installed);
    if library.is_none() {
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "NOT TESTED with ONNX Runtime: its library is not here; `scripts/install-onnxruntime` brings it"
        );
    }
    library
}
