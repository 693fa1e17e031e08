//! Starting, ending and crashing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::support::{PROGRAM, Sandbox, ask, soon, start_daemon, start_logging, web};
use sandbox::{Home, State};

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_and_ends_and_leaves_nothing() {
    let sandbox = Sandbox::start().await;
    let info = sandbox.running().await;
    assert!(info.api.starts_with("https://127.0.0.1:") && info.entry.starts_with("http://127.0.0.1:"));
    assert_eq!(u32::try_from(info.pid).unwrap(), sandbox.daemon.id());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(sandbox.home.dir()), 0o700);
    assert_eq!(mode(&info.kubeconfig), 0o600);
    assert!(!sandbox.log().contains("token"), "no secrets in the log");

    assert!(sandbox::stop(&sandbox.home, Duration::from_secs(10)).await.unwrap());
    assert_eq!(sandbox::state(&sandbox.home).unwrap(), State::Absent);
    assert!(!info.kubeconfig.exists());
    let none = || async { sandbox.processes().is_empty().then_some(()) };
    soon("no process is left", none).await;
    assert!(sandbox.log().contains("ended"), "{}", sandbox.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_one_in_the_same_folder_is_refused() {
    let sandbox = Sandbox::start().await;
    let mut second = start_daemon(&sandbox.home, 0);
    let status = tokio::task::spawn_blocking(move || second.wait().unwrap()).await.unwrap();
    assert!(!status.success());
    let told = format!("already running in {} (pid {})", sandbox.home.dir().display(), sandbox.daemon.id());
    assert!(sandbox.log().contains(&told), "{}", sandbox.log());
    assert!(matches!(sandbox::state(&sandbox.home).unwrap(), State::Running(_)), "the first one is unharmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_room_ends_nothing() {
    let sandbox = Sandbox::started(|home| start_logging(home, 0, Path::new("/dev/full"))).await;
    // Its first lines are lost by now.
    sandbox.running().await;
    assert!(sandbox::stop(&sandbox.home, Duration::from_secs(10)).await.unwrap());
    assert_eq!(sandbox::state(&sandbox.home).unwrap(), State::Absent, "it ended in good order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_the_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path());
    let mut daemon = start_daemon(&home, port);
    let status = tokio::task::spawn_blocking(move || daemon.wait().unwrap()).await.unwrap();
    assert!(!status.success());
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert!(
        log.contains(&format!("port {port} of 127.0.0.1")) && log.contains("--ingress-port takes another"),
        "{log}"
    );
    assert_eq!(sandbox::state(&home).unwrap(), State::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_leaves_no_process_and_the_next_start_works() {
    let mut sandbox = Sandbox::start().await;
    sandbox.import_web();
    let info = sandbox.ingress().await;
    sandbox.apply(&web("v1", 2, &sandbox.home.dir().to_string_lossy())).await;
    let is_up = || async {
        ask(&info.entry, "GET", "web.local", "up").await.ok().filter(|(status, _)| *status == 200)
    };
    soon("the pods answer", is_up).await;
    let running = sandbox.processes();
    assert!(running.len() >= 4, "daemon, ingress and pods: {running:?}");

    sandbox.daemon.kill().unwrap();
    sandbox.daemon.wait().unwrap();
    assert_eq!(sandbox::state(&sandbox.home).unwrap(), State::Stale);
    let port = info.entry.rsplit(':').next().unwrap().parse().unwrap();
    sandbox.daemon = start_daemon(&sandbox.home, port);
    let again = sandbox.running().await;
    assert_eq!((again.entry, again.pid), (info.entry.clone(), i32::try_from(sandbox.daemon.id()).unwrap()));
    let only_the_new = || async {
        let left = sandbox.processes();
        (left.len() == 1 && left.iter().all(|line| line.contains(PROGRAM))).then_some(())
    };
    soon("no process of the killed one is left", only_the_new).await;
    assert!(sandbox.kubectl(&["get", "pods", "-A"]).await.is_empty(), "it begins empty");
}

/// With the ingress and two pods.
async fn busy() -> (Sandbox, sandbox::Info) {
    let sandbox = Sandbox::start().await;
    sandbox.import_web();
    let info = sandbox.ingress().await;
    sandbox.apply(&web("v1", 2, "busy")).await;
    let is_up = || async {
        ask(&info.entry, "GET", "web.local", "up").await.ok().filter(|(status, _)| *status == 200)
    };
    soon("the pods answer", is_up).await;
    (sandbox, info)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_its_folder() {
    let (mut sandbox, _) = busy().await;
    std::fs::remove_dir_all(sandbox.home.dir()).unwrap();
    soon("the daemon ends", || std::future::ready(sandbox.daemon.try_wait().unwrap())).await;
    let none = || async { sandbox.processes().is_empty().then_some(()) };
    soon("no process is left", none).await;
    assert_eq!(sandbox::state(&sandbox.home).unwrap(), State::Absent);
    assert!(sandbox::stop(&sandbox.home, Duration::from_secs(5)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_lock_ends_it_and_leaves_the_next_ones_files_alone() {
    let (mut sandbox, info) = busy().await;
    std::fs::remove_file(sandbox.home.dir().join("lock")).unwrap();
    let mut next = start_daemon(&sandbox.home, 0);
    soon("the first one ends", || std::future::ready(sandbox.daemon.try_wait().unwrap())).await;
    std::mem::swap(&mut sandbox.daemon, &mut next);
    let again = sandbox.running().await;
    assert_ne!(again.pid, info.pid);
    // The first one, which has ended, has not taken them back.
    assert_eq!(sandbox::state(&sandbox.home).unwrap(), State::Running(again));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_while_it_runs_is_written_again() {
    let sandbox = Sandbox::start().await;
    let info = sandbox.running().await;
    let dir = sandbox.home.dir();
    let kubeconfig = std::fs::read(&info.kubeconfig).unwrap();
    for damage in ["", "nonsense", "1\n"] {
        for name in ["lock", "sandbox.json", "kubeconfig"] {
            std::fs::write(dir.join(name), damage).unwrap();
        }
        sandbox.running().await;
        let is_back = || async { (std::fs::read(&info.kubeconfig).ok()? == kubeconfig).then_some(()) };
        soon("the kubeconfig is back", is_back).await;
    }
    for name in ["sandbox.json", "kubeconfig"] {
        std::fs::remove_file(dir.join(name)).unwrap();
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    assert_eq!(sandbox.running().await, info);
    // Garbled at the last moment: it is found by other means than its pid, and nobody else is signalled.
    std::fs::write(dir.join("lock"), std::process::id().to_string()).unwrap();
    assert!(sandbox::stop(&sandbox.home, Duration::from_secs(10)).await.unwrap());
    assert_eq!(sandbox::state(&sandbox.home).unwrap(), State::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_lost_their_leash_too_are_found() {
    let (mut sandbox, info) = busy().await;
    let leash = sandbox.processes_of("leash");
    assert_eq!(leash.len(), 1, "{leash:?}");
    for pid in leash.into_iter().chain([info.pid]) {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
    }
    sandbox.daemon.wait().unwrap();
    // Not even the files are left to tell of them.
    std::fs::remove_dir_all(sandbox.home.dir()).unwrap();
    assert_eq!(sandbox::state(&sandbox.home).unwrap(), State::Stale);
    assert!(sandbox::stop(&sandbox.home, Duration::from_secs(10)).await.unwrap());
    assert_eq!(sandbox.processes(), Vec::<String>::new());
    assert_eq!(sandbox::state(&sandbox.home).unwrap(), State::Absent);
}
