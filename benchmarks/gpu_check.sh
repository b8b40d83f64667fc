#!/usr/bin/env bash
# Everything that needs a CUDA device, in one go and in under 9 minutes, without a network: what is installed, the tests
# marked gpu, the three GPU benchmarks, and a short full run of pick_place_can. A part that fails doesn't stop the others.
#
#   benchmarks/gpu_check.sh OUT             logs, JSON results, the run's curve, video and report go to OUT
#   DEVICE=cpu benchmarks/gpu_check.sh OUT  the same on Warp's CPU device, with tiny sizes
#
# PYTHON names the interpreter (python by default); it must be able to import caliper.
set -uo pipefail
OUT=$(mkdir -p "${1:?name a folder for the results}" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python} DEVICE=${DEVICE:-cuda}
failed=()

part() { # NAME SECONDS COMMAND...: its output goes to OUT/NAME.log, its end to the screen, its results to OUT
  local name=$1 limit=$(($2 * patience)) start=$SECONDS status=0
  shift 2
  timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1 || status=$? # a program that waits for a GPU may not heed TERM
  cp -u benchmarks/results/*_gpu.json "$OUT/" 2>/dev/null
  cp "$OUT"/run/{report.html,metrics.csv} "$OUT"/run/plots/learning_curve.png "$OUT"/run/videos/rollouts.mp4 "$OUT/" 2>/dev/null
  echo "== $name: status $status, $((SECONDS - start)) s"
  tail -n 3 "$OUT/$name.log" | cut -c1-600
  [ "$status" = 0 ] || failed+=("$name")
}

patience=1
if [ "$DEVICE" = cuda ]; then
  # Only the files with such tests: the others may ask for packages that are not there. And warnings do not
  # fail a test here: this Python and these packages are the machine's, not those of constraints.txt.
  mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' tests)
  bench=() tests=(-m gpu -W default "${files[@]}")
  run=(sim.device=cuda data.episodes=256 offline.clone_updates=1000 offline.updates=3000 offline.eval_every=1500
    agent.actor_start=1000 online.env_steps=25600 online.utd=0.125 online.eval_every=12800)
else
  patience=5 # the limits are a GPU machine's, whose cores are many and idle
  bench=(--quick --device cpu) tests=(-m "not gpu and not slow" tests/envs/test_graphs.py)
  run=(sim.device=cpu encoder=conv_tiny task.size=16 "task.cameras=[agentview]" task.horizon=3 data.episodes=2 data.num_envs=2
    batch_size=4 offline.clone_updates=2 offline.updates=2 agent.actor_start=1 online.num_envs=2 online.env_steps=8
    online.warmup_steps=2 online.capacity=100 evaluation.num_envs=2 evaluation.episodes=2 evaluation.final_episodes=2
    video.episodes=1 video.size=64)
fi
part doctor 40 "$PYTHON" -m caliper doctor
part tests 100 "$PYTHON" -m pytest -q -p no:cacheprovider -o faulthandler_timeout=50 "${tests[@]}"
part sim_gpu 110 "$PYTHON" benchmarks/sim_gpu.py "${bench[@]}"
part replay_gpu 50 "$PYTHON" benchmarks/replay_gpu.py "${bench[@]}"
part learner_gpu 80 "$PYTHON" benchmarks/learner_gpu.py "${bench[@]}"
# Captured updates, unless just now they did not work.
[[ $DEVICE = cuda && " ${failed[*]:-} " != *" learner_gpu "* ]] && run+=(learner=graph)
part run 150 "$PYTHON" -m caliper train preset=pick_place_can_gpu run_dir="$OUT/run" log.wandb=disabled "${run[@]}"
echo "== all in $SECONDS s; failed: ${failed[*]:-none}; results in $OUT"
[ ${#failed[@]} = 0 ]
