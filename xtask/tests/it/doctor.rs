//! Everything that is wrong, at once.

use serde_json::Value;

use crate::world::{Ran, World};

fn findings(ran: &Ran) -> Vec<Value> {
    ran.summary()["findings"].as_array().expect("findings").clone()
}

/// What was found at a level, as `check: what`.
fn at(findings: &[Value], level: &str) -> Vec<String> {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    findings
        .iter()
        .filter(|finding| finding["level"] == level)
        .map(|finding| {
            assert_eq!(level != "ok", !text(finding, "fix").is_empty(), "each problem has a fix: {finding}");
            format!("{}: {}", text(finding, "check"), text(finding, "what"))
        })
        .collect()
}

#[test]
fn warnings_do_not_fail() {
    let mut world = World::sandbox();
    let kube = world.scratch().join(".kube");
    std::fs::create_dir_all(&kube).expect("making the folder");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number");
    let config = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'https://{free}'}}}}]\n\
         contexts: [{{name: {}, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n",
        world.profile
    );
    std::fs::write(kube.join("config"), config).expect("writing");
    // rustup finds its toolchains by HOME.
    let home = std::env::var("HOME").unwrap_or_default();
    for (name, folder) in [("RUSTUP_HOME", ".rustup"), ("CARGO_HOME", ".cargo")] {
        world.set(name, std::env::var(name).unwrap_or_else(|_| format!("{home}/{folder}")));
    }
    let scratch = world.scratch().display().to_string();
    world.set("HOME", scratch);
    world.set("DOCKER_HOST", "tcp://somewhere-else:1");
    let ran = world.run_ok(&["doctor", "--output", "json"]);
    let findings = findings(&ran);
    assert_eq!(at(&findings, "fatal"), [""; 0]);
    let warnings = at(&findings, "warning");
    for wanted in [
        "environment: DOCKER_HOST=tcp://somewhere-else:1 is ignored",
        &format!("context: the context `{}` of {}", world.profile, kube.join("config").display()),
    ] {
        assert!(
            warnings.iter().any(|warning| warning.starts_with(wanted)),
            "{wanted} is not in {warnings:#?}"
        );
    }
    let well = at(&findings, "ok");
    for check in ["rustc", "cargo", "cc", "cluster", "manifests"] {
        assert!(well.iter().any(|line| line.starts_with(check)), "{check} is not in {well:#?}");
    }
    assert!(!world.home().exists(), "nothing was changed");
}

#[test]
fn all_problems_are_told_at_once() {
    let mut world = World::sandbox();
    world.set("PATH", "/nonexistent");
    world.set("XTASK_CLUSTER", "minikube");
    let ran = world.run(&["doctor", "--output", "json"]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert_eq!((ran.summary()["ok"].clone(), ran.summary()["exit_code"].clone()), (false.into(), 10.into()));
    let fatal = at(&findings(&ran), "fatal");
    for tool in ["rustc", "cargo", "cc", "minikube", "docker"] {
        let wanted = format!("no `{tool}` on PATH");
        assert!(fatal.iter().any(|line| line.contains(&wanted)), "{wanted} is not in {fatal:#?}");
    }
    let human = world.run(&["doctor"]);
    assert_eq!(human.code, 10);
    assert!(human.stdout.contains("✗ cluster      no `minikube` on PATH\n"), "{}", human.stdout);
    assert!(
        human.stderr.contains("problems would keep `cargo xtask up --cluster minikube --profile "),
        "{}",
        human.stderr
    );
}

#[test]
fn what_keeps_the_sandbox_from_starting_is_fatal_for_it() {
    let mut world = World::sandbox();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its number").port();
    world.set("XTASK_PORT", port);
    let root = world.own_workspace();
    let file = root.join("kubernetes/30-deployment.yaml");
    let text = std::fs::read_to_string(&file).expect("reading");
    std::fs::write(
        &file,
        text.replace("memory: 1Gi", "memory: 100Ti").replace("memory: 1536Mi", "memory: 100Ti"),
    )
    .expect("writing");
    let ran = world.run(&["doctor", "--output", "json"]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    let fatal = at(&findings(&ran), "fatal");
    let has = |words: &str| fatal.iter().any(|line| line.contains(words));
    assert!(has(&format!("cluster: port {port} of 127.0.0.1")), "{fatal:#?}");
    assert!(has("memory: 3 pods of 102400.0 GiB don't fit: this machine has"), "{fatal:#?}");
}

#[test]
fn a_running_cluster_is_asked_for_its_room() {
    let mut world = World::sandbox();
    world.run_ok(&["up"]);
    let ran = world.run_ok(&["doctor", "--output", "json"]);
    let all = findings(&ran);
    let memory = all.iter().find(|finding| finding["check"] == "memory").expect("memory");
    assert!(memory["what"].as_str().expect("what").contains("node sandbox has"), "{memory}");
    let well = at(&all, "ok");
    let of_this_build = format!("sandbox: `{}` is running", world.profile);
    assert!(well.iter().any(|line| line.starts_with(&of_this_build)), "{well:#?}");

    // The program was built again since the daemon was started.
    world.set("XTASK_SANDBOX", world.another_sandbox_program().display());
    let status = world.run_ok(&["status", "--output", "json"]).summary();
    assert!(
        status["warning"].as_str().is_some_and(|why| why.contains("another build of this tool")),
        "{status}"
    );
    let warnings = at(&findings(&world.run_ok(&["doctor", "--output", "json"])), "warning");
    let older = format!("sandbox: `{}` is running", world.profile);
    let older = warnings.iter().find(|line| line.starts_with(&older));
    assert!(
        older.is_some_and(|line| line.ends_with("started by another build of this tool")),
        "{warnings:#?}"
    );
}
