/*
 * Says what a container looks like from inside, a line for each thing: "SECTION NAME=VALUE".
 * Judges nothing. Static, so that it needs no file beside it.
 *
 *     probe [--wait] [--exit N] [--signal N] [--calls] [PATH...]
 *
 * Each PATH is looked at. --calls tries system calls with arguments that do no harm, --wait reads
 * standard input to its end, and then the program ends as it was told to.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <unistd.h>

static const char *error_name(int number)
{
	const char *name = strerrorname_np(number);
	return name ? name : "?";
}

/* A line, with what would break it made visible. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	char line[8192];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	for (unsigned char *c = (unsigned char *)line; *c; c++) {
		if (isprint(*c))
			putchar(*c);
		else
			printf("\\x%02x", *c);
	}
	putchar('\n');
}

static int read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	size_t got = 0;
	ssize_t n = 0;
	while (got + 1 < size && (n = read(fd, text + got, size - 1 - got)) > 0)
		got += n;
	int error = n < 0 ? -errno : 0;
	close(fd);
	text[got] = 0;
	return error;
}

/* A line for each line of a file. */
static void say_file(const char *section, const char *path)
{
	static char text[1 << 18];
	int error = read_file(path, text, sizeof text);
	if (error) {
		say("%s=%s", section, error_name(-error));
		return;
	}
	char *rest = text;
	for (char *line; (line = strsep(&rest, "\n")) && (*line || rest);)
		say("%s %s", section, line);
}

static void identity(void)
{
	uid_t u[3];
	gid_t g[3], groups[256];
	char list[4096] = "";
	getresuid(&u[0], &u[1], &u[2]);
	getresgid(&g[0], &g[1], &g[2]);
	say("ids uid=%u,%u,%u", u[0], u[1], u[2]);
	say("ids gid=%u,%u,%u", g[0], g[1], g[2]);
	int count = getgroups(256, groups);
	for (int i = 0; i < count; i++)
		sprintf(list + strlen(list), " %u", groups[i]);
	say("ids groups=%s", list);
	say_file("uid_map", "/proc/self/uid_map");
	say_file("gid_map", "/proc/self/gid_map");
	say_file("setgroups", "/proc/self/setgroups");
}

/* Capabilities, signals and the rest that the kernel writes there. */
static void status(void)
{
	static const char *wanted[] = { "Umask:",  "Cap",	     "NoNewPrivs:", "Seccomp:",
					"Sig",	   "Cpus_allowed_list:", "Mems_allowed_list:",
					"Threads:", "FDSize:" };
	static char text[16384];
	if (read_file("/proc/self/status", text, sizeof text)) {
		say("status=none");
		return;
	}
	char *rest = text;
	for (char *line; (line = strsep(&rest, "\n"));)
		for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
			if (!strncmp(line, wanted[i], strlen(wanted[i])))
				say("status %s", line);
}

static void limits(void)
{
	static const char *names[] = { "CPU",	 "FSIZE",   "DATA",   "STACK",	    "CORE",	"RSS",
				       "NPROC",	 "NOFILE",  "MEMLOCK", "AS",	    "LOCKS",	"SIGPENDING",
				       "MSGQUEUE", "NICE",  "RTPRIO", "RTTIME" };
	for (int i = 0; i < 16; i++) {
		struct rlimit limit;
		getrlimit(i, &limit);
		say("rlimit %s=%lld:%lld", names[i], (long long)limit.rlim_cur, (long long)limit.rlim_max);
	}
}

struct scheduling {
	unsigned size, policy;
	unsigned long long flags;
	int nice;
	unsigned priority;
	unsigned long long runtime, deadline, period;
	unsigned min, max;
};

static void scheduling(void)
{
	struct scheduling s = { 0 };
	long got = syscall(SYS_sched_getattr, 0, &s, sizeof s, 0);
	if (got < 0)
		say("schedule=%s", error_name(errno));
	else
		say("schedule policy=%u flags=%llu nice=%d priority=%u runtime=%llu deadline=%llu period=%llu",
		    s.policy, s.flags, s.nice, s.priority, s.policy == 6 ? s.runtime : 0, s.deadline,
		    s.period);
	errno = 0;
	int nice = getpriority(PRIO_PROCESS, 0);
	say("nice=%d", nice);
	say("ioprio=%ld", syscall(SYS_ioprio_get, 1, 0));
	say("personality=%x", personality(0xffffffff));
	say_file("oom_score_adj", "/proc/self/oom_score_adj");
	say_file("timerslack", "/proc/self/timerslack_ns");
	say_file("coredump_filter", "/proc/self/coredump_filter");
	int mode = -1;
	unsigned long nodes[16] = { 0 };
	long rc = syscall(SYS_get_mempolicy, &mode, nodes, sizeof nodes * 8, 0, 0);
	say("mempolicy=%s %d %lx", rc ? error_name(errno) : "", mode, nodes[0]);
	int signal = -1, reaper = -1;
	prctl(PR_GET_PDEATHSIG, &signal);
	prctl(PR_GET_CHILD_SUBREAPER, &reaper);
	say("prctl pdeathsig=%d", signal);
	say("prctl subreaper=%d", reaper);
	say("prctl dumpable=%d", prctl(PR_GET_DUMPABLE));
	say("prctl keepcaps=%d", prctl(PR_GET_KEEPCAPS));
	say("prctl securebits=%d", prctl(PR_GET_SECUREBITS));
	say("prctl thp_disable=%d", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
	say("prctl tsc=%d", prctl(PR_GET_SPECULATION_CTRL, 0, 0, 0, 0));
	char name[17] = "";
	prctl(PR_GET_NAME, name);
	say("prctl name=%s", name);
}

static void session(void)
{
	say("pid=%d", getpid());
	say("parent=%d", getppid());
	say("session own=%d group own=%d", getsid(0) == getpid(), getpgid(0) == getpid());
	char key[512] = "";
	long rc = syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, key, sizeof key);
	say("keyring=%s", rc < 0 ? error_name(errno) : key);
	say_file("label", "/proc/self/attr/current");
	int visible = 0;
	DIR *proc = opendir("/proc");
	for (struct dirent *entry; proc && (entry = readdir(proc));)
		visible += isdigit((unsigned char)entry->d_name[0]) != 0;
	if (proc)
		closedir(proc);
	say("processes=%s", visible == 0 ? "none" : visible < 8 ? "few" : "many");
}

static void terminal(void)
{
	for (int fd = 0; fd < 3; fd++) {
		struct winsize size;
		struct termios mode;
		if (!isatty(fd) || ioctl(fd, TIOCGWINSZ, &size) || tcgetattr(fd, &mode)) {
			say("tty %d=none", fd);
			continue;
		}
		char name[256] = "";
		ttyname_r(fd, name, sizeof name);
		struct stat s = { 0 };
		fstat(fd, &s);
		say("tty %d=%s %ux%u in=%o out=%o control=%o local=%o mode=%o uid=%u gid=%u", fd, name,
		    size.ws_row, size.ws_col, mode.c_iflag, mode.c_oflag, mode.c_cflag, mode.c_lflag,
		    s.st_mode, s.st_uid, s.st_gid);
	}
	int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	say("tty controlling=%s", fd < 0 ? error_name(errno) : "yes");
	if (fd >= 0) {
		say("tty foreground=%d", tcgetpgrp(fd) == getpgrp());
		close(fd);
	}
}

static void descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	if (!directory)
		return;
	for (struct dirent *entry; (entry = readdir(directory));) {
		char path[300], target[PATH_MAX] = "";
		int fd = atoi(entry->d_name);
		if (entry->d_name[0] == '.' || fd == dirfd(directory))
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		if (readlink(path, target, sizeof target - 1) < 0)
			continue;
		/* Which pipe it is does not matter. */
		char *number = strchr(target, '[');
		if (number && target[0] != '/')
			*number = 0;
		struct stat s = { 0 };
		fstat(fd, &s);
		say("fd %d=%s flags=%x uid=%u gid=%u mode=%o", fd, target, fcntl(fd, F_GETFL), s.st_uid,
		    s.st_gid, s.st_mode);
	}
	closedir(directory);
}

static char kind(mode_t mode)
{
	return S_ISREG(mode)  ? 'f' :
	       S_ISDIR(mode)  ? 'd' :
	       S_ISLNK(mode)  ? 'l' :
	       S_ISCHR(mode)  ? 'c' :
	       S_ISBLK(mode)  ? 'b' :
	       S_ISFIFO(mode) ? 'p' :
				's';
}

/* Type, mode, owner, numbers; for a directory how many entries, for a file how many bytes. */
static void stat_line(const char *section, const char *path, int contents)
{
	struct stat s;
	if (lstat(path, &s)) {
		say("%s %s=%s", section, path, error_name(errno));
		return;
	}
	char more[PATH_MAX + 64] = "";
	if (S_ISCHR(s.st_mode) || S_ISBLK(s.st_mode))
		sprintf(more, " %u:%u", major(s.st_rdev), minor(s.st_rdev));
	if (S_ISLNK(s.st_mode)) {
		strcpy(more, " -> ");
		if (readlink(path, more + 4, PATH_MAX) < 0)
			strcpy(more, " -> ?");
	}
	if (contents && S_ISREG(s.st_mode))
		sprintf(more, " %lld bytes", (long long)s.st_size);
	say("%s %s=%c %04o %u:%u%s", section, path, kind(s.st_mode), s.st_mode & 07777, s.st_uid,
	    s.st_gid, more);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All that is below a directory. */
static void walk(const char *section, const char *path, int depth)
{
	char *names[512];
	int count = 0;
	DIR *directory = opendir(path);
	if (!directory) {
		say("%s %s/=%s", section, path, error_name(errno));
		return;
	}
	for (struct dirent *entry; count < 512 && (entry = readdir(directory));)
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			names[count++] = strdup(entry->d_name);
	closedir(directory);
	qsort(names, count, sizeof *names, by_name);
	for (int i = 0; i < count; i++) {
		char below[PATH_MAX];
		struct stat s;
		snprintf(below, sizeof below, "%s/%s", path, names[i]);
		stat_line(section, below, 1);
		if (depth > 1 && !lstat(below, &s) && S_ISDIR(s.st_mode))
			walk(section, below, depth - 1);
		free(names[i]);
	}
}

/* What a device lets one do; the devices cgroup decides. */
static void devices(void)
{
	stat_line("dev", "/dev", 0);
	walk("dev", "/dev", 2);
	static const char *nodes[] = { "/dev/null", "/dev/zero", "/dev/full", "/dev/random",
				       "/dev/urandom", "/dev/fuse", "/dev/made-c", "/dev/made-b",
				       "/dev/kmsg", "/dev/net/tun", "/dev/ptmx" };
	for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
		const int ways[] = { O_RDONLY, O_WRONLY, O_RDWR };
		const char *outcome[3];
		for (int way = 0; way < 3; way++) {
			int fd = open(nodes[i], ways[way] | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
			outcome[way] = fd < 0 ? error_name(errno) : "yes";
			if (fd >= 0)
				close(fd);
		}
		say("open %s=read %s, write %s, both %s", nodes[i], outcome[0], outcome[1], outcome[2]);
	}
	static const struct { mode_t type; unsigned major, minor; } made[] = {
		{ S_IFCHR, 1, 3 },   { S_IFCHR, 1, 1 },	  { S_IFCHR, 1, 7 },  { S_IFCHR, 5, 1 },
		{ S_IFCHR, 10, 229 }, { S_IFCHR, 10, 200 }, { S_IFBLK, 7, 0 }, { S_IFBLK, 8, 1 },
		{ S_IFCHR, 136, 3 }, { S_IFCHR, 4, 0 },	  { S_IFBLK, 7, 3 },
	};
	for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
		int rc = mknod("/dev/probe", made[i].type | 0666, makedev(made[i].major, made[i].minor));
		say("mknod %c %u:%u=%s", kind(made[i].type), made[i].major, made[i].minor,
		    rc ? error_name(errno) : "yes");
		unlink("/dev/probe");
	}
}

/* Whether a path can be read and written, and what is there. */
static void look_at(const char *path)
{
	struct stat s;
	stat_line("path", path, 1);
	if (stat(path, &s))
		return;
	struct statfs fs;
	if (!statfs(path, &fs))
		say("path %s filesystem=%lx flags=%lx", path, (long)fs.f_type, (long)fs.f_flags);
	if (S_ISDIR(s.st_mode)) {
		char file[PATH_MAX];
		snprintf(file, sizeof file, "%s/.probe", path);
		int fd = open(file, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
		say("path %s write=%s", path, fd < 0 ? error_name(errno) : "yes");
		if (fd >= 0) {
			close(fd);
			unlink(file);
		}
		if (strncmp(path, "/proc", 5) && strncmp(path, "/sys", 4))
			walk("path", path, 3);
		else {
			int count = 0;
			DIR *directory = opendir(path);
			for (; directory && readdir(directory); count++)
				;
			if (directory)
				closedir(directory);
			say("path %s entries=%s", path, !directory ? error_name(errno) : count > 2 ? "some" : "none");
		}
		return;
	}
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	say("path %s write=%s", path, fd < 0 ? error_name(errno) : "yes");
	if (fd >= 0)
		close(fd);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	say("path %s read=%s", path, fd < 0 ? error_name(errno) : "yes");
	if (fd >= 0) {
		char text[256];
		ssize_t got = S_ISREG(s.st_mode) && strncmp(path, "/proc", 5) && strncmp(path, "/sys", 4) ?
				      read(fd, text, sizeof text - 1) :
				      -1;
		if (got >= 0) {
			text[got] = 0;
			say("path %s text=%s", path, text);
		}
		close(fd);
	}
}

static void kernel(void)
{
	struct utsname name;
	uname(&name);
	say("hostname=%s", name.nodename);
	say("domainname=%s", name.domainname);
	say("machine=%s", name.machine);
	static const char *sysctls[] = {
		"net/ipv4/ip_forward", "net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range",
		"net/core/somaxconn", "net/ipv4/conf/all/rp_filter", "kernel/shmmax", "kernel/shm_rmid_forced",
		"kernel/msgmax", "kernel/msgmnb", "kernel/sem", "fs/mqueue/msg_max", "fs/mqueue/queues_max",
		"kernel/hostname", "kernel/domainname", "net/ipv4/tcp_syncookies", "kernel/pid_max",
	};
	for (size_t i = 0; i < sizeof sysctls / sizeof *sysctls; i++) {
		char path[200], section[220];
		snprintf(path, sizeof path, "/proc/sys/%s", sysctls[i]);
		snprintf(section, sizeof section, "sysctl %s", sysctls[i]);
		say_file(section, path);
	}
	static const char *spaces[] = { "cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts" };
	for (size_t i = 0; i < 8; i++) {
		char path[64], target[128] = "none";
		snprintf(path, sizeof path, "/proc/self/ns/%s", spaces[i]);
		ssize_t length = readlink(path, target, sizeof target - 1);
		target[length < 0 ? 0 : length] = 0;
		say("namespace %s=%s", spaces[i], target);
	}
	say_file("timens", "/proc/self/timens_offsets");
	say_file("interface", "/proc/net/dev");
	struct ifreq_flags { char name[16]; short flags; char pad[22]; } lo = { .name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	say("loopback=%s", fd < 0 ? error_name(errno) :
			   ioctl(fd, 0x8913, &lo) ? error_name(errno) : lo.flags & 1 ? "up" : "down");
	if (fd >= 0)
		close(fd);
	say_file("cgroup", "/proc/self/cgroup");
}

struct call { const char *name; long number; long arguments[6]; };
#define CALL(name, ...) { #name, SYS_##name, { __VA_OPT__(__VA_ARGS__) } }
#define BAD 1 /* An address at which there is nothing. */

static const struct call CALLS[] = {
	CALL(getpid), CALL(uname, BAD), CALL(mkdirat, AT_FDCWD, BAD), CALL(fchmodat, AT_FDCWD, BAD),
	CALL(fchownat, AT_FDCWD, BAD), CALL(getcwd, BAD, 4096), CALL(unshare, 0), CALL(unshare, CLONE_NEWUSER),
	CALL(unshare, CLONE_NEWUTS), CALL(mount, BAD, BAD, BAD), CALL(umount2, BAD), CALL(ptrace, 9999),
	CALL(keyctl, 9999), CALL(add_key, BAD, BAD), CALL(request_key, BAD, BAD), CALL(bpf, 9999),
	CALL(perf_event_open, BAD), CALL(personality, 0xffffffff), CALL(socket, AF_INET, SOCK_STREAM),
	CALL(socket, AF_NETLINK, SOCK_RAW), CALL(socket, AF_VSOCK, SOCK_STREAM), CALL(socket, AF_INET, SOCK_RAW, 1),
	CALL(clone3, BAD, 64), CALL(swapon, BAD), CALL(swapoff, BAD), CALL(reboot, 0), CALL(init_module, BAD),
	CALL(delete_module, BAD), CALL(setns, -1), CALL(acct, BAD), CALL(open_by_handle_at, -1),
	CALL(name_to_handle_at, -1, BAD), CALL(settimeofday, BAD), CALL(clock_settime, 0, BAD),
	CALL(clock_adjtime, 0, BAD), CALL(syslog, 10), CALL(syslog, 3), CALL(quotactl, 0), CALL(userfaultfd, -1),
	CALL(io_uring_setup, 1, BAD), CALL(pivot_root, BAD, BAD), CALL(chroot, BAD), CALL(sethostname, BAD, 1),
	CALL(setdomainname, BAD, 1), CALL(kcmp, 1, 1, 9999), CALL(process_vm_readv, 1, BAD, 1, BAD, 1),
	CALL(lookup_dcookie, 0, BAD), CALL(mbind, BAD), CALL(set_mempolicy, 9999), CALL(move_pages, 0),
	CALL(fanotify_init, -1), CALL(setuid, 12345), CALL(setgid, 12345), CALL(setgroups, 0), CALL(kill, 1, 0),
	CALL(setpriority, 0, 0, -5), CALL(statx, -1, BAD), CALL(faccessat2, -1, BAD), CALL(close_range, 9, 8),
	CALL(pidfd_open, -1), CALL(openat2, -1, BAD), CALL(landlock_create_ruleset, BAD), CALL(memfd_create, BAD),
	CALL(sched_setscheduler, 0, 1, BAD), CALL(setxattr, BAD), CALL(fsopen, BAD), CALL(open_tree, -1, BAD),
	{ "call 999", 999, { 0 } },
};

static void try_calls(void)
{
	for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
		const struct call *call = &CALLS[i];
		const long *a = call->arguments;
		fflush(stdout);
		pid_t child = fork();
		if (child <= 0) {
			errno = 0;
			long rc = syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
			int error = rc < 0 ? errno : 0;
			if (child == 0)
				_exit(error);
			say("call %zu %s=%s (not forked)", i, call->name, error ? error_name(error) : "fine");
			continue;
		}
		int status = 0;
		waitpid(child, &status, 0);
		if (WIFSIGNALED(status))
			say("call %zu %s=signal %d", i, call->name, WTERMSIG(status));
		else
			say("call %zu %s=%s", i, call->name, WEXITSTATUS(status) ? error_name(WEXITSTATUS(status)) : "fine");
	}
}

extern char **environ;

int main(int argc, char **argv)
{
	static char buffer[1 << 20];
	char cwd[PATH_MAX] = "";
	int code = 0, signal = 0, wait = 0, calls = 0, plain = 0;
	setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
	/* First of all: later ones are the program's own. */
	descriptors();
	for (int i = 0; i < argc; i++)
		say("argv %d=%s", i, argv[i]);
	for (int i = 0; environ[i]; i++)
		say("env %d=%s", i, environ[i]);
	say("cwd=%s", syscall(SYS_getcwd, cwd, sizeof cwd) < 0 ? error_name(errno) : cwd);
	say("executable=%s", realpath("/proc/self/exe", cwd) ? cwd : error_name(errno));
	identity();
	status();
	limits();
	scheduling();
	session();
	terminal();
	kernel();
	say_file("mount", "/proc/self/mountinfo");
	devices();
	stat_line("path", "/", 0);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--wait"))
			wait = 1;
		else if (!strcmp(argv[i], "--calls"))
			calls = 1;
		else if (!strcmp(argv[i], "--exit") && i + 1 < argc)
			code = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--signal") && i + 1 < argc)
			signal = atoi(argv[++i]);
		else if (argv[i][0] == '/')
			look_at(argv[i]);
		else
			plain++;
	}
	if (calls)
		try_calls();
	say("end plain=%d", plain);
	fflush(stdout);
	char byte;
	while (wait && read(0, &byte, 1) > 0)
		;
	if (signal) {
		/* The first process of a pid namespace cannot kill itself. */
		kill(getpid(), signal);
		raise(signal);
	}
	return code;
}
