//! `watch`: the watcher. `parent KIND`: starts two process groups on a leash, prints every pid, one a line, then waits.
//! KIND `plain`: shells with a child; `stubborn`: the same, deaf to SIGTERM; `released`: taken off the leash again.

use std::ffi::OsString;
use std::io::{BufRead as _, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["watch"] => leash::watch_stdin(),
        ["parent", kind] => parent(kind),
        _ => anyhow::bail!("usage: watch | parent KIND"),
    }
}

fn parent(kind: &str) -> anyhow::Result<()> {
    let watcher: [OsString; 2] = [std::env::current_exe()?.into(), "watch".into()];
    let leash = leash::Leash::start(&watcher)?;
    let mut stdout = std::io::stdout();
    for _ in 0..2 {
        let trap = if kind == "stubborn" { "trap '' TERM; " } else { "" };
        let script = format!("{trap}sleep 1000 & echo $!; echo; wait");
        let mut child =
            Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).process_group(0).spawn()?;
        let pgid = i32::try_from(child.id())?;
        leash.hold(pgid);
        if kind == "released" {
            leash.release(pgid);
        }
        writeln!(stdout, "{pgid}")?;
        if let Some(lines) = child.stdout.take() {
            for line in
                std::io::BufReader::new(lines).lines().map_while(Result::ok).take_while(|l| !l.is_empty())
            {
                writeln!(stdout, "{line}")?;
            }
        }
    }
    writeln!(stdout)?;
    stdout.flush()?;
    // Ends by SIGKILL, or when the test closes stdin.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
