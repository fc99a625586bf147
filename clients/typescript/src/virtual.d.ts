declare module "k2:board" {
  import type { BoardRow } from "./board.ts";
  const rows: BoardRow[];
  export default rows;
}
