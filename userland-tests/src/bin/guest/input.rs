//! What a program does with a pipe that it has for its input.

use std::io;
use std::time::Duration;

use rustix::io::ioctl_fionread;
use rustix::pipe::fcntl_setpipe_size;

use crate::Outcome;

/// More than a page, which is lent at a time.
const MORE: u64 = 8 << 10;

/// Makes the pipe larger that it reads from and prints the first eight bytes that come; all, if that is asked for. Else gives
/// whoever fills it some time to put more into it than it reads, or, if it has another argument, waits for that.
pub fn larger(arguments: &[String]) -> Outcome {
    let input = io::stdin();
    fcntl_setpipe_size(&input, 1 << 20)?;
    if arguments.first().is_some_and(|argument| argument == "all") {
        print!("{}", io::read_to_string(input)?);
        return Ok(());
    }
    let mut first = [0; 8];
    rustix::io::read(&input, &mut first)?;
    print!("{}", String::from_utf8_lossy(&first));
    let awaits = !arguments.is_empty();
    for look in 0.. {
        if (!awaits && look == 30) || ioctl_fionread(&input)? > MORE {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
