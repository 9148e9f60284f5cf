(() => {
  const all = [...document.querySelectorAll("audio")];
  for (const one of all) {
    const head = one.closest("figure").querySelector(".head");
    one.addEventListener("play", () => {
      for (const other of all) if (other !== one) other.pause();
    });
    one.addEventListener("timeupdate", () => {
      head.hidden = !(one.currentTime > 0 && one.duration > 0);
      head.style.left = `${(100 * one.currentTime) / one.duration}%`;
    });
  }
})();
