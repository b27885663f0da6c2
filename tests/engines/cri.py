"""containerd's CRI plugin, as a kubelet drives it: every container is in a pod of its own."""

import base64
import json
from pathlib import Path

import image
from box import WORK
from call import Done, call
from ctr import Containerd
from engine import Options
from expect import Failed, eventually, expect

CONFIGURATION = """
version = 2
root = "{work}/containerd"
state = "/run/containerd"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# For less than it has itself it would need CAP_SYS_RESOURCE.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{work}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "untested"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.untested]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
BinaryName = "{path}"
"""

NETWORK = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": True,
            "ipam": {
                "type": "host-local",
                "dataDir": f"{WORK}/addresses",
                "ranges": [[{"subnet": "10.77.0.0/24"}]],
            },
        }
    ],
}


class Cri(Containerd):
    name = "cri"
    programs = {**Containerd.programs, "/usr/lib/cni/bridge": "containernetworking-plugins"}
    namespace = "k8s.io"
    limits = ("memory", "cpus", "cpuset")
    # What comes over another connection than that of the calls: input, and exec with options.
    input = execute_options = False
    has_statuses = False

    def begin(self):
        (WORK / "cni").mkdir()
        (WORK / "cni" / "10-pods.conflist").write_text(json.dumps(NETWORK))
        self.containerd(
            CONFIGURATION.format(
                work=WORK,
                socket=self.socket,
                pause=image.PAUSE,
                name=self.runtime.name,
                path=self.runtime,
            )
        )
        pause = WORK / "pause.tar"
        image.write(pause, image.PAUSE, image.WAITING)
        self.load(self.image, pause)
        self.client = self.target / "locule" / "cri"
        self.pods, self.containers = {}, {}
        expect(self.run("first", "true").code == 0, "the first container fails")
        self.remove_all()

    def ask(self, method, **request):
        done = call(self.client, self.socket, method, json.dumps(request))
        return json.loads(done.fine())

    # --- Pods --------------------------------------------------------------------------------

    def pod(self, name, **namespaces):
        """Makes a pod; its namespaces are POD, CONTAINER or NODE."""
        config = {
            "metadata": {"name": name, "uid": name, "namespace": "tests"},
            # A pod with the node's network has the node's name.
            "hostname": "" if namespaces.get("network") == "NODE" else f"pod-{name}",
            "log_directory": str(WORK / "pods" / name),
            "linux": {
                "security_context": {"namespace_options": {"pid": "CONTAINER", **namespaces}}
            },
        }
        Path(config["log_directory"]).mkdir(parents=True, exist_ok=True)
        self.keep(name)
        answer = self.ask("RunPodSandbox", config=config, runtime_handler=self.runtime.name)
        self.pods[name] = answer["pod_sandbox_id"], config

    def add(self, pod, name, *program, **options):
        """Makes a container in a pod and starts it."""
        sandbox, config = self.pods[pod]
        log = Path(config["log_directory"]) / f"{name}.log"
        log.unlink(missing_ok=True)
        created = self.ask(
            "CreateContainer",
            pod_sandbox_id=sandbox,
            sandbox_config=config,
            config=self.container(name, program, config, Options(**options)),
        )
        self.containers[name] = created["container_id"], log
        self.ask("StartContainer", container_id=created["container_id"])

    def container(self, name, program, pod, wanted):
        resources = {"memory_limit_in_bytes": wanted.memory, "cpuset_cpus": wanted.cpuset}
        if wanted.cpus:
            resources.update(cpu_period=100_000, cpu_quota=int(wanted.cpus * 100_000))
        security = {**pod["linux"]["security_context"], "readonly_rootfs": wanted.readonly}
        if wanted.user:
            security["run_as_username"] = wanted.user
        if wanted.filter:
            security["seccomp"] = {"profile_type": "RuntimeDefault"}
        return {
            "metadata": {"name": name},
            "image": {"image": image.REFERENCE},
            "command": program,
            "working_dir": wanted.cwd or "",
            "envs": [{"key": key, "value": value} for key, value in wanted.env.items()],
            "mounts": [
                {"host_path": str(source), "container_path": target, "readonly": mode == "ro"}
                for source, target, mode in wanted.mounts
            ],
            "devices": [
                {"host_path": source, "container_path": target, "permissions": access}
                for source, target, access in wanted.devices
            ],
            "log_path": f"{name}.log",
            "tty": wanted.tty,
            "linux": {
                "resources": {key: value for key, value in resources.items() if value is not None},
                "security_context": security,
            },
        }

    # --- Containers --------------------------------------------------------------------------

    def run(self, name, *program, **options):
        try:
            self.launch(name, *program, **options)
        except Failed as failed:
            return Done(1, "", str(failed))
        code, _ = self.ended(name)
        return Done(code, self.lines(name, "stdout"), self.lines(name, "stderr"))

    def launch(self, name, *program, **options):
        self.pod(name)
        self.add(name, name, *program, **options)

    def execute(self, name, *program):
        try:
            answer = self.ask(
                "ExecSync", container_id=self.containers[name][0], cmd=program, timeout=20
            )
        except Failed as failed:
            return Done(1, "", str(failed))
        said = [base64.b64decode(answer[stream]).decode() for stream in ("stdout", "stderr")]
        return Done(answer["exit_code"], *said)

    def log_file(self, name):
        return self.containers[name][1]

    def output(self, name):
        return self.lines(name, "stdout", "stderr")

    def lines(self, name, *streams):
        """What it has written to a stream: every line of the log has time, stream and a tag."""
        parts = [line.split(" ", 3) for line in self.log_file(name).read_text().splitlines()]
        return "".join(
            text + "\n" * (tag == "F") for _, stream, tag, text in parts if stream in streams
        )

    def stop(self, name, seconds):
        self.ask("StopContainer", container_id=self.containers[name][0], timeout=seconds)

    def update(self, name, memory):
        self.ask(
            "UpdateContainerResources",
            container_id=self.containers[name][0],
            linux={"memory_limit_in_bytes": memory},
        )

    def remove(self, name):
        pod, _ = self.pods.pop(name, (None, None))
        if pod:
            self.ask("StopPodSandbox", pod_sandbox_id=pod)
            self.ask("RemovePodSandbox", pod_sandbox_id=pod)

    def status(self, name):
        return self.ask("ContainerStatus", container_id=self.containers[name][0], verbose=True)

    def state(self, name):
        return self.status(name)["status"]["state"].removeprefix("CONTAINER_").lower()

    def pid(self, name):
        return json.loads(self.status(name)["info"]["info"])["pid"]

    def ended(self, name):
        """The status, and whether the kernel killed it for want of memory."""
        eventually("the container ends", lambda: self.state(name) == "exited", 30)
        status = self.status(name)["status"]
        return status["exit_code"], status["reason"] == "OOMKilled"

    def address(self, name):
        answer = self.ask("PodSandboxStatus", pod_sandbox_id=self.pods[name][0])
        return answer["status"]["network"]["ip"]
