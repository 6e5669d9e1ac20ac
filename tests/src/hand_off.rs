//! What the end of a container means for a job that runs in it.

use crate::World;

impl World {
    /// Stops the server in the middle of a job, as an orchestrator stops a container, and starts it again: the job is handed off and ends well.
    ///
    /// # Panics
    /// When the job is not handed off and run to its end by the second server.
    pub async fn stop_in_mid_job(&mut self) {
        let gate = self.gate("long");
        let id = self
            .submit(&format!("echo begun; {}; echo over", gate.wait()))
            .await;
        self.logged(&id, "begun").await;
        self.sigterm();
        self.stopped();
        gate.open();
        self.boot();
        let job = self.ended(&id).await;
        assert_eq!(job["status"], "succeeded", "{job}");
        assert_eq!(job["attempt"], 2, "{job}");
        let events = self.events(&id).await;
        let is_hand_off = |event: &serde_json::Value| event["reason"] == "hand_off";
        assert!(events.iter().any(is_hand_off), "{events:?}");
    }
}
