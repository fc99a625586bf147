declare module "k2:board" {
  const rows: import("./board.ts").BoardRow[];
  export default rows;
}
