//! Interception: the descriptor through which the calls arrive that a task's filter stops. What it stops is said in
//! `confinement/policies/task.policy`.

pub mod listener;
