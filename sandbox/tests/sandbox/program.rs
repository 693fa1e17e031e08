//! The program's command line.

use std::process::{Command, Output};

use crate::support::PROGRAM;

fn sandbox(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).env_remove("SANDBOX_HOME").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn its_help_names_every_command_and_exit_code_on_stdout() {
    let output = sandbox(&["--help"]);
    let help = text(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for command in ["serve", "stop", "status", "enable", "import", "image", "fault"] {
        assert!(help.contains(&format!("\n  {command} ")), "no {command} in {help}");
        let own = sandbox(&[command, "--help"]);
        assert!(own.status.success() && text(&own.stdout).contains("--home <DIR>"), "{own:?}");
    }
    for code in 0..=4 {
        assert_eq!(help.contains(&format!("\n  {code}  ")), code != 3, "{help}");
    }
    for inner in ["ingress", "leash"] {
        assert!(!help.contains(&format!("\n  {inner} ")), "an inner command shows: {help}");
    }
    assert!(text(&sandbox(&["fault", "--help"]).stdout).contains("cut-watches"));
    assert!(text(&sandbox(&["--version"]).stdout).starts_with("sandbox "));
}

#[test]
fn what_is_not_there_and_what_is_not_understood_have_codes_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("none");
    let home = home.to_str().unwrap();
    for args in [
        &["enable", "--home", home, "ingress"][..],
        &["fault", "--home", home, "list"],
        &["image", "--home", home, "web:1"],
    ] {
        assert_eq!(sandbox(args).status.code(), Some(4), "{args:?}");
    }
    assert_eq!(text(&sandbox(&["status", "--home", home]).stdout), "absent\n");
    assert_eq!(sandbox(&["stop"]).status.code(), Some(2), "without a home");
    assert_eq!(sandbox(&["begin"]).status.code(), Some(2));
}
