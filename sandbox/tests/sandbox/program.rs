//! The program's command line.

use std::process::{Command, Output, Stdio};

use crate::support::{PROGRAM, Sandbox};

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
    assert_eq!(
        text(&sandbox(&["status", "--home", home]).stdout),
        format!("absent: no sandbox runs in {home}\n")
    );
    assert_eq!(sandbox(&["stop"]).status.code(), Some(2), "without a home");
    assert_eq!(sandbox(&["begin"]).status.code(), Some(2));
}

/// What went wrong, on what, and what to try.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_answered_with_the_thing_and_the_cure() {
    let sandbox = Sandbox::started(|home| {
        let mut serve = Command::new(PROGRAM);
        serve.args(["serve", "--faults", "--home"]).arg(home.dir());
        serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    })
    .await;
    let without_faults = Sandbox::start().await;
    let plain = without_faults.home.dir().display().to_string();
    let home = sandbox.home.dir().display().to_string();
    let pid = sandbox.daemon.id();
    let file = sandbox.home.dir().join("sandbox.json").display().to_string();
    let store = tempfile::tempdir().unwrap();
    let store = store.path().to_str().unwrap();
    let fault = |fault: &str| vec!["fault".to_owned(), "--home".to_owned(), home.clone(), fault.to_owned()];
    let words = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let lists = "hint: `sandbox help fault` shows what each fault looks like";
    for (args, told) in [
        (
            words(&format!("serve --home {home}")),
            format!(
                "error: a sandbox is already running in {home} (pid {pid})\n\
                 hint: `sandbox status --home {home}` says how to reach it, \
                 `sandbox stop --home {home}` ends it"
            ),
        ),
        (
            words(&format!("serve --home {file}")),
            format!("error: using {file} as the sandbox's folder: not a directory"),
        ),
        (
            words(&format!("enable --home {store}/none ingress")),
            format!(
                "no sandbox is running in {store}/none\nhint: `sandbox serve --home {store}/none` starts one"
            ),
        ),
        (words(&format!("image --home {store} web:1")), "there is no image web:1".to_owned()),
        (
            words(&format!("import --home {store} --tag web:1 --file {store}/absent=web -- web")),
            format!(
                "error: importing image web:1: reading {store}/absent: No such file or directory (os error 2)"
            ),
        ),
        (
            fault(r#"{"fault":"kil","namespace":"default","pod":"web-1"}"#),
            format!(
                "error: this is no fault: unknown variant `kil`, expected one of `api`, `cut-watches`, \
                 `kill`, `refuse-image`, `fail-probes`, `black-hole`, `proxy`, `latency` \
                 at line 1 column 14\n{lists}"
            ),
        ),
        (
            fault(r#"{"fault":"api","resource":["pods"],"effect":"hang"}"#),
            format!(
                "error: this is no fault: unknown field `resource`, expected one of `resources`, `verbs`, \
                 `namespace`, `effect`, `times`, `seconds`\n{lists}"
            ),
        ),
        (
            fault(r#"{"fault":"cut-watches","resources":["podz"]}"#),
            format!(
                "error: this is no fault: unknown resource `podz`, expected a plural such as `pods`, \
                 or a path\n{lists}"
            ),
        ),
        (
            words(&format!("fault --home {plain} list")),
            format!(
                "error: the sandbox in {plain} was started without --faults\n\
                 hint: `sandbox stop --home {plain}`, then `sandbox serve --home {plain} --faults`"
            ),
        ),
        (
            fault(r#"{"fault":"kill","namespace":"default","pod":"absent"}"#),
            "error: asking the sandbox for a fault: no container of pod default/absent runs here".to_owned(),
        ),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = tokio::task::block_in_place(|| self::sandbox(&args));
        assert_eq!(text(&output.stderr).trim_end(), told, "{args:?}");
        assert!(!output.status.success(), "{args:?}");
    }
}
