//! stdout and stderr as they may be: full, closed, left by their reader.

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;

use crate::world::World;

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("/dev/full").into()
}

/// A pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn data_that_can_not_be_written_is_an_error() {
    let world = World::sandbox();
    for args in [&["status"][..], &["status", "--output", "json"], &["up", "--dry-run"], &["--help"]] {
        let output = world.command(args).stdout(full()).output().expect("running the tool");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(20), "{args:?}: {stderr}");
        assert!(stderr.contains("error: writing to stdout: No space left on device"), "{args:?}: {stderr}");
    }
}

#[test]
fn a_reader_that_leaves_ends_what_only_reads_without_a_word() {
    let world = World::sandbox();
    for args in [&["status"][..], &["up", "--dry-run", "--output", "json"], &["--help"]] {
        let output = world.command(args).stdout(unread()).output().expect("running the tool");
        assert_eq!(output.status.code(), Some(141), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

/// Writing to a person is never a reason to stop, and the exit code stays what it was.
#[test]
fn nobody_has_to_read_what_is_written_for_a_person() {
    let world = World::sandbox();
    for (stderr, code) in [(full(), 10), (unread(), 10)] {
        let ran = world.command(&["smoke"]).stderr(stderr).output().expect("running the tool");
        assert_eq!(ran.status.code(), Some(code));
    }
    let ran = world.command(&["nonsense"]).stderr(full()).output().expect("running the tool");
    assert_eq!(ran.status.code(), Some(2));
    // The weights are there from here on.
    world.run_ok(&["up"]);
    for stderr in [full(), unread()] {
        let mut child = world
            .command(&["redeploy"])
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("starting the tool");
        let mut data = String::new();
        child.stdout.take().expect("stdout").read_to_string(&mut data).expect("reading");
        assert_eq!(child.wait().expect("waiting for the tool").code(), Some(0));
        assert_eq!(data, "");
    }
    // What changes the cluster goes on when the reader of its events leaves.
    let ran =
        world.command(&["redeploy", "--output", "json"]).stdout(unread()).output().expect("running the tool");
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
}
