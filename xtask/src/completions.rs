//! `cargo xtask completions`: a script by which a shell completes this tool's command line, behind `cargo xtask` too.

use anyhow::Result;
use clap_complete::{Shell, generate};

use crate::cli;
use crate::cx::Cx;
use crate::options::Format;
use crate::summary::Summary;

/// The name under which the shell knows the tool's own completion.
const NAME: &str = "xtask";

/// cargo's own completion knows nothing of an alias: these hand `cargo xtask …` over.
const BASH: &str = r#"
_cargo_xtask() {
    if [[ ${COMP_WORDS[1]} == xtask && $COMP_CWORD -gt 1 ]]; then
        COMP_WORDS=("${COMP_WORDS[@]:1}")
        COMP_CWORD=$((COMP_CWORD - 1))
        _xtask xtask "$2" "$3"
    elif declare -F _cargo >/dev/null; then
        _cargo "$@"
    else
        COMPREPLY=($(compgen -W "build check clippy fmt run test xtask" -- "$2"))
    fi
}
complete -F _cargo_xtask -o nosort -o bashdefault -o default cargo
"#;
const ZSH: &str = "\n_cargo-xtask() { _xtask \"$@\" }\n";
const FISH: &str = r#"
complete -c cargo -f -n '__fish_seen_subcommand_from xtask' \
    -a '(set -l words (commandline -opc) (commandline -ct); complete -C "xtask $words[3..]")'
"#;

/// Prints the script for a shell.
///
/// # Errors
/// None today; the signature is that of every command.
pub fn run(cx: &Cx, shell: Shell) -> Result<Summary> {
    let mut script = Vec::new();
    generate(shell, &mut cli::command(), NAME, &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    script.push_str(match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
        _ => "",
    });
    if cx.shared.output == Format::Human {
        cx.output.data(script.trim_end());
        return Ok(Summary::new());
    }
    Ok([("script".to_owned(), script.into())].into_iter().collect())
}
