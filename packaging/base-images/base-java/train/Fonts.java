import java.awt.Font;
import java.awt.Graphics2D;
import java.awt.image.BufferedImage;
import java.util.Arrays;

/** Draws text: a check, and it leaves fontconfig's cache behind, which no app may write. */
public final class Fonts {
    public static void main(String[] args) {
        BufferedImage image = new BufferedImage(100, 40, BufferedImage.TYPE_BYTE_GRAY);
        Graphics2D graphics = image.createGraphics();
        graphics.setFont(new Font(Font.SANS_SERIF, Font.PLAIN, 20));
        graphics.drawString("Text", 5, 25);
        int[] points = image.getData().getSamples(0, 0, 100, 40, 0, (int[]) null);
        if (Arrays.stream(points).allMatch(point -> point == 0)) {
            throw new IllegalStateException("no text was drawn");
        }
    }
}
