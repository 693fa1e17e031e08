//! Accidents at random moments of random commands; whatever happens, nothing is left behind and the next `up` is green.
//! `scripts/chaos RUNS SEED` tries as many as you like; the seed makes the same ones again, but not to the millisecond.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::disk::Disk;
use crate::world::{World, eventually};

const COMMANDS: [&[&str]; 6] = [
    &["up"],
    &["redeploy"],
    &["down"],
    &["load", "--get", "/health", "--requests", "40"],
    &["load", "--get", "/health", "--requests", "40", "--during", "rollout"],
    &["load", "--get", "/health", "--requests", "40", "--without", "pre-stop"],
];
/// Longer than the longest of them, on a busy machine.
const LONGEST: Duration = Duration::from_secs(180);

/// What happens in the middle of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accident {
    /// The tool gets a signal.
    Signal(&'static str),
    /// Whoever read stderr has left.
    StderrCloses,
    /// What is written to stderr has no room.
    StderrFull,
    /// There is room for so many bytes more on the disk of the tool, the sandbox and its pods, until the command has
    /// ended.
    DiskFull(u64),
    /// No file of the tool's can grow beyond this many blocks of 512 bytes.
    FilesCannotGrow(u64),
    /// The sandbox is killed.
    SandboxDies,
    /// The sandbox's folder is deleted.
    FolderGoes,
}

/// A number below `end`, of this seed, for this purpose.
fn draw(seed: u64, run: u64, purpose: &str, end: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, run, purpose).hash(&mut hasher);
    hasher.finish() % end
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect(variable))
}

#[test]
#[allow(clippy::print_stderr)] // what was tried, for who repeats it
fn whatever_happens_in_the_middle_the_next_up_is_green_and_nothing_is_left_over() {
    let (runs, seed) = (number("CHAOS_RUNS", 4), number("CHAOS_SEED", 11));
    let disk = Disk::mount(512);
    if disk.is_none() {
        eprintln!("not root, so no disk can be mounted and filled: files that can't grow stand for it");
    }
    let mut world = World::sandbox();
    if let Some(disk) = &disk {
        world.write_on(disk.path());
    }
    let manifests = world.own_workspace().join("kubernetes");
    // Rollouts and drains as ever, and sooner over.
    for (file, slow, quick) in [
        ("30-deployment.yaml", "seconds: 5\n", "seconds: 1\n"),
        ("30-deployment.yaml", "terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 5"),
        ("40-hpa.yaml", "minReplicas: 3", "minReplicas: 2"),
    ] {
        let path = manifests.join(file);
        let text = std::fs::read_to_string(&path).expect("reading a manifest");
        assert!(text.contains(slow), "{file}: {slow}");
        std::fs::write(&path, text.replace(slow, quick)).expect("writing a manifest");
    }
    world.run_ok(&["up"]);
    let declared = objects(&world);
    // How long each takes when nothing happens, learned on the way.
    let mut usual: BTreeMap<&[&str], Duration> = BTreeMap::new();
    let mut counts: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    for run in 0..runs {
        let drawn = |purpose, end| draw(seed, run, purpose, end);
        let command = COMMANDS[usize::try_from(drawn("command", 6)).expect("small")];
        let accident = match drawn("accident", 11) {
            0 | 1 => Accident::Signal("-KILL"),
            2 => Accident::Signal("-HUP"),
            3 => Accident::Signal("-TERM"),
            4 => Accident::StderrCloses,
            5 => Accident::StderrFull,
            6 | 7 if disk.is_some() => Accident::DiskFull(drawn("bytes", 1 << drawn("magnitude", 20))),
            6..=8 => Accident::FilesCannotGrow(drawn("blocks", 1 << drawn("magnitude", 19))),
            9 => Accident::SandboxDies,
            _ => Accident::FolderGoes,
        };
        // A disk has room again some day, but a limit is for life: not for a sandbox that is born under it.
        let is_for_life = matches!(accident, Accident::FilesCannotGrow(_));
        if command == ["up"] && !is_for_life && drawn("from nothing", 2) == 0 {
            world.run_ok(&["down"]);
        }
        let usual = usual.entry(command).or_insert(Duration::from_secs(8));
        let after = usual.mul_f64(f64::from(u32::try_from(drawn("moment", 1000)).expect("small")) / 1000.0);
        let what = format!("run {run} of seed {seed}: `{}`, {accident:?} after {after:?}", command.join(" "));
        let began = Instant::now();
        let mut child = start(&world, command, accident);
        std::thread::sleep(after);
        happen(&world, disk.as_ref(), &mut child, accident);
        let status = end(&mut child, &what);
        if let (Some(disk), Accident::DiskFull(_)) = (&disk, accident) {
            disk.clear();
        }
        if status.success() {
            *usual = (*usual + began.elapsed()) / 2;
        }
        judge(command, accident, status, &what);
        eventually(&format!("{what}: the command leaves no process"), Duration::from_secs(20), || {
            world.processes().iter().all(|line| is_of_the_sandbox(line))
        });
        let up = world.run(&["up"]);
        assert_eq!(up.code, 0, "{what}: the next `up`:\n{}", up.stderr);
        assert_eq!(objects(&world), declared, "{what}");
        eventually(&format!("{what}: a process for each pod, and no other"), Duration::from_secs(20), || {
            let apps = world.processes().iter().filter(|line| line.contains("/images/")).count();
            apps == pods(&world)
        });
        eprintln!("{what}: {status}; the next `up` took {:?}", up.took);
        slowest = slowest.max(up.took);
        let mut kind = format!("{accident:?}");
        // How much does not matter, which signal does.
        if !matches!(accident, Accident::Signal(_)) {
            kind.truncate(kind.find('(').unwrap_or(kind.len()));
        }
        *counts.entry(kind).or_default().entry(status.to_string()).or_default() += 1;
    }
    world.run_ok(&["down"]);
    eventually("no process is left", Duration::from_secs(10), || world.processes().is_empty());
    for (kind, ends) in counts {
        eprintln!("{kind}: {ends:?}");
    }
    eprintln!("{runs} accidents, and all is well; the slowest `up` after one took {slowest:?}");
}

fn start(world: &World, command: &[&str], accident: Accident) -> Child {
    let tool = world.command(&[command, &["--timeout", "60s"]].concat());
    let mut shell = match accident {
        Accident::FilesCannotGrow(blocks) => {
            let mut shell = Command::new("/bin/sh");
            let script = format!(r#"trap "" XFSZ; ulimit -f {blocks}; exec "$@""#);
            shell.args(["-c", &script, "sh"]).arg(tool.get_program()).args(tool.get_args());
            shell.current_dir(tool.get_current_dir().expect("the workspace"));
            for (name, value) in tool.get_envs() {
                match value {
                    Some(value) => shell.env(name, value),
                    None => shell.env_remove(name),
                };
            }
            shell
        }
        _ => tool,
    };
    let stderr = match accident {
        Accident::StderrCloses => Stdio::piped(),
        Accident::StderrFull => File::create("/dev/full").expect("opening /dev/full").into(),
        _ => Stdio::null(),
    };
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().expect("starting the tool")
}

fn happen(world: &World, disk: Option<&Disk>, child: &mut Child, accident: Accident) {
    match accident {
        Accident::Signal(signal) => kill(signal, child.id()),
        Accident::StderrCloses => drop(child.stderr.take()),
        Accident::DiskFull(left) => disk.expect("it is mounted").fill(left),
        Accident::StderrFull | Accident::FilesCannotGrow(_) => {}
        Accident::SandboxDies => {
            let text = std::fs::read(world.home().join("sandbox.json")).unwrap_or_default();
            let info: Value = serde_json::from_slice(&text).unwrap_or_default();
            // There may be none at this moment.
            if let Some(pid) = info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()) {
                kill("-KILL", pid);
            }
        }
        Accident::FolderGoes => {
            // What writes there at this moment may make it again.
            let _ = std::fs::remove_dir_all(world.home());
        }
    }
}

/// It may have ended already.
fn kill(signal: &str, pid: u32) {
    let killed = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
    killed.expect("running kill");
}

fn end(child: &mut Child, what: &str) -> ExitStatus {
    let until = Instant::now() + LONGEST;
    loop {
        if let Some(status) = child.try_wait().expect("waiting for the tool") {
            return status;
        }
        if Instant::now() > until {
            kill("-KILL", child.id());
            panic!("{what}: still running after {LONGEST:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The exit codes that an accident may have; a panic's is never among them.
fn judge(command: &[&str], accident: Accident, status: ExitStatus, what: &str) {
    let of_the_accident: &[i32] = match accident {
        Accident::Signal("-KILL") if status.code().is_none() => return,
        Accident::Signal("-KILL") | Accident::StderrCloses | Accident::StderrFull => &[],
        Accident::Signal(_) => &[130],
        Accident::FilesCannotGrow(_) => &[10, 20],
        // There may be no room for the folder of a pod, which a gate waits for: the disk may have room again.
        Accident::DiskFull(_) => &[10, 20, 30, 31],
        Accident::SandboxDies | Accident::FolderGoes => &[10, 20, 30],
    };
    // A load fails by its thresholds where a protection is missing, and is invalid on a machine that is busy otherwise.
    let of_the_command: &[i32] = if command[0] == "load" { &[0, 40, 41] } else { &[0] };
    let is_fine =
        status.code().is_some_and(|code| [of_the_accident, of_the_command].concat().contains(&code));
    assert!(is_fine, "{what}: {status}");
}

fn is_of_the_sandbox(line: &str) -> bool {
    ["/sandbox serve ", "/sandbox leash", "/sandbox ingress ", "/images/"]
        .iter()
        .any(|part| line.contains(part))
}

fn pods(world: &World) -> usize {
    world.kubectl(&["get", "pods", "--no-headers"]).stdout.lines().count()
}

/// What is declared of each object of the app, as the cluster has it: without what differs from one `up` to the next.
fn objects(world: &World) -> Value {
    let kinds = "deployment,service,ingress,hpa,pdb,configmap,networkpolicy,serviceaccount,namespace";
    let ran = world.kubectl(&["get", kinds, "-o", "json"]);
    let mut list: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
    let items = list["items"].as_array_mut().expect("items");
    let declared = items.iter_mut().map(|item| {
        let own = ["deployment.kubernetes.io/revision", "autoscaling.alpha.kubernetes.io/conditions"];
        without(&mut item["metadata"]["annotations"], &own);
        without(
            &mut item["spec"]["template"]["metadata"]["annotations"],
            &["kubectl.kubernetes.io/restartedAt"],
        );
        without(&mut item["spec"], &["replicas", "clusterIP", "clusterIPs"]);
        let title = format!("{} {}", item["kind"], item["metadata"]["name"]);
        let about = ["labels", "annotations"].map(|name| item["metadata"][name].clone());
        (title, json!([about, item["spec"], item["data"]]))
    });
    declared.collect()
}

fn without(map: &mut Value, keys: &[&str]) {
    if let Some(map) = map.as_object_mut() {
        map.retain(|key, _| !keys.contains(&key.as_str()));
    }
}
