# Does as ffmpeg does: writes how far it is ten times a second, and completes its file when it is told to end.
#   camera.sh PROGRESS FILE [sound] [LOST] [-filter_complex GRAPH | -/filter_complex pipe:DESCRIPTOR]
# With "sound" it takes no pictures. Of three pictures, LOST are lost; others stand in for them. A graph that comes from
# a pipe is awaited; without one there is an error.
progress=$1
file=$2
pictures=1
[ "$3" = sound ] && pictures=0
if [ "$5" = -/filter_complex ]; then
    [ -n "$(cat "/proc/self/fd/${6#pipe:}")" ] || exit 234
fi
frames=0
trap 'printf "[end %s]" "$frames" >> "$file"; exit 255' TERM
printf "[begin]" > "$file"
while [ "$frames" -lt 100000 ]; do
    frames=$((frames + 3))
    printf 'frame=%s\ndup_frames=%s\ndrop_frames=0\nout_time_us=%s\nprogress=continue\n' \
        "$((frames * pictures))" "$((frames / 3 * ${4:-0}))" "$((frames * 33333))" >> "$progress"
    sleep 0.05
done
