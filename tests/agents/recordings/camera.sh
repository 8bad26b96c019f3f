# Does as ffmpeg does: writes how far it is ten times a second, and completes its file when it is told to end.
#   camera.sh PROGRESS FILE [FRAMES]
progress=$1
file=$2
last=${3:-100000}
frames=0
trap 'printf "[end %s]" "$frames" >> "$file"; exit 255' TERM
printf "[begin]" > "$file"
while [ "$frames" -lt "$last" ]; do
    frames=$((frames + 3))
    printf 'frame=%s\ndup_frames=0\ndrop_frames=0\nout_time_us=%s\nprogress=continue\n' \
        "$frames" "$((frames * 33333))" >> "$progress"
    sleep 0.05
done
