//! Keys as they are pressed, unseen and without the Enter behind them.

use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;

use parking_lot::Mutex;
use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The terminal's settings from before its keys were taken.
#[derive(Default)]
pub(super) struct Keyboard(Mutex<Option<Termios>>);

/// The keys of the terminal, until dropped; none where stdin is no terminal, or another process has it.
pub struct Keys<'k> {
    keyboard: &'k Keyboard,
    pressed: Option<UnboundedReceiver<u8>>,
}

impl Keyboard {
    pub(super) fn take(&self) -> Keys<'_> {
        let pressed = self.listen();
        Keys { keyboard: self, pressed }
    }

    fn listen(&self) -> Option<UnboundedReceiver<u8>> {
        let stdin = std::io::stdin();
        // In the background, to ask for keys would be to be stopped.
        if !stdin.is_terminal() || tcgetpgrp(&stdin) != Ok(getpgrp()) {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut settings = before.clone();
        // Ctrl-C stays a signal.
        settings.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        settings.special_codes[SpecialCodeIndex::VMIN] = 1;
        settings.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &settings).ok()?;
        *self.0.lock() = Some(before);
        let (tell, pressed) = unbounded_channel();
        // It ends with the process: a read of a terminal can't be given up.
        let read = move || {
            let mut key = [0];
            while let Ok(1) = rustix::io::read(stdin.as_fd(), &mut key) {
                if tell.send(key[0]).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("keys".to_owned()).spawn(read).ok()?;
        Some(pressed)
    }

    /// Puts the terminal back as it was.
    pub(super) fn give_back(&self) {
        if let Some(before) = self.0.lock().take() {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
        }
    }
}

impl Keys<'_> {
    /// Whether there are any.
    #[must_use]
    pub fn are_taken(&self) -> bool {
        self.pressed.is_some()
    }

    /// Ends when `key` is pressed; other keys mean nothing.
    pub async fn pressed(&mut self, key: u8) {
        let Some(pressed) = &mut self.pressed else { return std::future::pending().await };
        while let Some(next) = pressed.recv().await {
            if next == key {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

impl Drop for Keys<'_> {
    fn drop(&mut self) {
        self.keyboard.give_back();
    }
}
