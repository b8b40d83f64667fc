#!/usr/bin/env bash
# slurm.sh FOLDER: a Slurm of one node, this machine, whose files are under FOLDER. Needs root, slurm-wlm, munge.
set -euo pipefail
folder=$(mkdir -p "$1/state" "$1/spool" && cd "$1" && pwd)
host=$(hostname -s)
cat >"$folder/slurm.conf" <<END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# So many seconds a requeued job waits, instead of 120.
AuthInfo=cred_expire=20
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobRequeue=1
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
if ! munge -n >/dev/null 2>&1; then
    mkdir -p /run/munge /etc/munge
    [ -f /etc/munge/munge.key ] || (umask 377 && dd if=/dev/urandom bs=1 count=1024 of=/etc/munge/munge.key status=none)
    chown -R munge:munge /run/munge /etc/munge /var/log/munge /var/lib/munge
    su -s /bin/sh munge -c munged
fi
export SLURM_CONF=$folder/slurm.conf
slurmctld
sleep 1
slurmd
for _ in $(seq 30); do
    sinfo --noheader --format=%T | grep -q idle && exit 0
    sleep 1
done
echo "the node does not become idle" >&2
exit 1
